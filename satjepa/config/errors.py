"""What is wrong with a params file, in one line: file, key, what was found, what is accepted.

pydantic finds the mistakes; `first_mistake` says the first of them in the words of this repository.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

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
    path = _path(mistake["loc"])
    if unknown:
        return unknown_key(schema, dotted(path))
    if mistake["type"] == "refused":
        context = mistake["ctx"]
        key = ".".join(filter(None, [dotted(path), context["key"]]))
        return ConfigError(key, in_words(context["value"]), context["accepted"])
    if mistake["type"] == "missing" and isinstance(path[-1], int):  # of a list of a fixed length
        return ConfigError(dotted(path[:-1]), "a shorter list", f"a list of {path[-1] + 1}")
    if mistake["type"].startswith("union_tag"):
        path = (*path, "kind")
        found = mistake["ctx"].get("tag", "nothing")
        return ConfigError(dotted(path), repr(found), _choices(mistake["ctx"]["expected_tags"]))
    missing = mistake["type"] == "missing"
    found = "nothing" if missing else in_words(mistake["input"])
    return ConfigError(dotted(path) or "(file)", found, _accepted(schema, path, mistake))


def unknown_key(schema: type[BaseModel], key: str) -> ConfigError:
    """The error for a dotted `key` that `schema` does not have.

    Nearest to it is the same name in another section, else whatever is spelled most alike.
    """
    keys = valid_keys(schema)
    section, _, leaf = key.rpartition(".")
    names = [k for k in keys if k.rpartition(".")[0] == section]
    names = names or [k for k in keys if "." not in k]
    nearest = [k for k in keys if k.rpartition(".")[2] == leaf]
    nearest = nearest or difflib.get_close_matches(key, keys, 1)
    return ConfigError(key, "an unknown key", ", ".join(names), nearest[0] if nearest else None)


def valid_keys(schema: type[BaseModel]) -> list[str]:
    """Every dotted key of a schema, sections included, in the order of the fields."""
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        keys.append(name)
        for section in _sections(field.annotation):
            keys += [f"{name}.{key}" for key in valid_keys(section)]
    return keys


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field may hold."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind


def _path(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """An error's path without the kind that follows the name of an arm."""
    return (*loc[:3], *loc[4:]) if loc[:2] == ARMS and len(loc) > 3 else loc


def dotted(path: tuple[str | int, ...]) -> str:
    """ "data.presets[1]" of ("data", "presets", 1)."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


def in_words(value: Any) -> str:
    """A value and its type, as an error shows them."""
    return f"{value!r} ({type(value).__name__})"


def _choices(expected: str) -> str:
    return " | ".join(re.findall(r"'([^']*)'", expected))


def _accepted(schema: type[BaseModel], path: tuple[str | int, ...], mistake: ErrorDetails) -> str:
    """What would have been right."""
    kind = mistake["type"]
    context = mistake.get("ctx", {})
    if kind == "literal_error":
        return _choices(context["expected"])
    if kind in ("model_type", "model_attributes_type"):
        below = [key for key in valid_keys(schema) if key.startswith(f"{dotted(path)}.")]
        return "a mapping with the keys " + ", ".join(below or valid_keys(schema))
    return ACCEPTED.get(kind, mistake["msg"]).format(**context)
