"""What is wrong with a params file, in one line: file, key, what was found, what is accepted.

pydantic finds the mistakes; `first_mistake` says the first of them in the words of this repository.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

ARMS = ("baselines", "arms")  # where pydantic's path of an error also names the kind of an arm
# pydantic's type of an error -> what is accepted; {x} is taken from the error's context
ACCEPTED = {
    "missing": "every key of this section must be given",
    "int_type": "int",
    "int_parsing": "int",
    "float_type": "float, finite",
    "finite_number": "float, finite",
    "bool_type": "true or false",
    "string_type": "text, not empty",
    "string_too_short": "text, not empty",
    "string_pattern_mismatch": "a name of letters, digits and _, for it names a folder",
    "dict_type": "a mapping from names to values",
    "tuple_type": "a list",
    "list_type": "a list",
    "too_short": "a list of one or more",
    "too_long": "a list of {max_length}",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "multiple_of": "a multiple of {multiple_of:g}",
}


class ConfigError(ValueError):
    """A value that is not as its field says.

    Attributes: `key` dotted, `found` and `accepted` in words, `nearest` a valid dotted key or None,
    `source` the file.
    """

    def __init__(self, key: str, found: str, accepted: str, nearest: str | None = None) -> None:
        super().__init__(key, found, accepted, nearest)
        self.key = key
        self.found = found
        self.accepted = accepted
        self.nearest = nearest
        self.source: Path | None = None

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{where}{self.key}: found {self.found}; accepted: {self.accepted}{hint}"


def refuse(key: str, value: Any, accepted: str) -> PydanticCustomError:
    """The error of a validator about a key below what it validates ("" for that itself)."""
    context = {"key": key, "value": value, "accepted": accepted}
    return PydanticCustomError("refused", "{accepted}", context)


def first_mistake(schema: type[BaseModel], error: ValidationError) -> ConfigError:
    """The first mistake that pydantic found; an unknown key goes before what is missing for it."""
    mistakes = error.errors(include_url=False)
    unknown = [mistake for mistake in mistakes if mistake["type"] == "extra_forbidden"]
    mistake = (unknown or mistakes)[0]
    loc = tuple(part for part in mistake["loc"] if part != "[key]")
    key = dotted(loc)
    kind = mistake["type"]
    context = mistake.get("ctx", {})
    if unknown:
        place = dotted(loc[:-1])
        beside = valid_keys(_annotation_at(schema, loc[:-1])) if place else []
        return unknown_key(schema, key, [f"{place}.{name}" for name in beside])
    if kind == "refused":
        key = ".".join(filter(None, [key, context["key"]]))
        return ConfigError(key, in_words(context["value"]), context["accepted"])
    if kind == "missing" and isinstance(loc[-1], int):  # of a list of a fixed length
        return ConfigError(dotted(loc[:-1]), "a shorter list", f"a list of {loc[-1] + 1}")
    if kind.startswith("union_tag"):
        kinds = " | ".join(_kinds(_annotation_at(schema, loc)))
        return ConfigError(f"{key}.kind", repr(context.get("tag", "nothing")), kinds)
    found = "nothing" if kind == "missing" else in_words(mistake["input"])
    return ConfigError(key or "(file)", found, _accepted(schema, loc, mistake))


def unknown_key(schema: type[BaseModel], key: str, more: Sequence[str] = ()) -> ConfigError:
    """The error for a dotted `key` that `schema` does not have.

    Nearest to it is the same name in another section, else whatever is spelled most alike. more:
    keys that stand beside it where `valid_keys` cannot know them, as in an arm.
    """
    keys = [*more, *valid_keys(schema)]
    section, _, leaf = key.rpartition(".")
    beside = [k for k in keys if k.rpartition(".")[0] == section]
    beside = beside or [k for k in keys if "." not in k]
    nearest = [k for k in keys if k.rpartition(".")[2] == leaf]
    nearest = nearest or difflib.get_close_matches(key, keys, 1)
    accepted = ", ".join(dict.fromkeys(beside))
    return ConfigError(key, "an unknown key", accepted, nearest[0] if nearest else None)


def valid_keys(schema: type[BaseModel]) -> list[str]:
    """Every dotted key of a schema, sections included, in the order of the fields; not the names of
    arms, which are free.
    """
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        keys.append(name)
        if _is_section(field.annotation):
            keys += [f"{name}.{key}" for key in valid_keys(field.annotation)]
    return keys


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _annotation_at(schema: Any, loc: tuple[str | int, ...]) -> Any:
    """The type that stands at a place of a schema, as pydantic names places: a field, a key of a
    mapping, the kind of an arm.
    """
    here = schema
    for part in loc:
        while get_origin(here) is Annotated:
            here = get_args(here)[0]
        if _is_section(here):
            here = here.model_fields[part].annotation
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            here = _kinds(here)[part]
    while get_origin(here) is Annotated:
        here = get_args(here)[0]
    return here


def _kinds(union: Any) -> dict[str, Any]:
    """The members of a union of arms by their `kind`."""
    return {get_args(arm.model_fields["kind"].annotation)[0]: arm for arm in get_args(union)}


def dotted(loc: tuple[str | int, ...]) -> str:
    """`data.presets[1]` of ("data", "presets", 1); an arm's kind, which stands after its name in
    pydantic's places, is left out.
    """
    if loc[:2] == ARMS and len(loc) > 3:
        loc = (*loc[:3], *loc[4:])
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).removeprefix(".")


def in_words(value: Any) -> str:
    """A value and its type, as an error shows them."""
    return f"{value!r} ({type(value).__name__})"


def _accepted(schema: type[BaseModel], loc: tuple[str | int, ...], mistake: ErrorDetails) -> str:
    """What would have been right."""
    kind = mistake["type"]
    context = mistake.get("ctx", {})
    if kind == "literal_error":
        return " | ".join(re.findall(r"'([^']*)'", context["expected"]))
    if kind in ("model_type", "model_attributes_type"):
        section = _annotation_at(schema, loc)
        keys = valid_keys(section) if _is_section(section) else ["kind", "model", "train", "sample"]
        return "a mapping with the keys " + ", ".join(keys)
    return ACCEPTED.get(kind, mistake["msg"]).format(**context)
