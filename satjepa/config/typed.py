"""Plain data -> strict frozen dataclasses; fields and types are the schema, a mistake is a
`ConfigError` saying where.

A field is int, float, str, bool, `X | None`, Literal of texts, tuple[X, ...] (one or more, none
twice), list[X] (one or more; a tuple, too, in the dataclass), tuple[X, Y], dict[str, X], Any,
another dataclass, or Annotated[number, Range(...)]. Every field must be given.
"""

import copy
import dataclasses
import difflib
import functools
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The numbers a field accepts: low .. high, both included unless `above` leaves low out."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Weight = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]


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


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises ConfigError where there is none, or it is not YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("(file)", "no such file", "a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError("(file)", " ".join(str(error).split()), "YAML") from None


def with_keys(kind: type, values: dict[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the nested `values` in which each dotted key has its new value. `build` refuses
    unknown ones later.
    """
    tree = copy.deepcopy(values)
    for key, value in dotted.items():
        *sections, leaf = key.split(".")
        node = tree
        for name in sections:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise unknown_key(kind, key)
        node[leaf] = value
    return tree


def build(kind: type[T], values: Any) -> T:
    """The dataclass `kind` from nested plain `values` as YAML gives them. Raises ConfigError."""
    _refuse_unknown(kind, kind, values, "")
    return _section(kind, values, "")


@functools.cache
def valid_keys(kind: type) -> tuple[str, ...]:
    """Every dotted key of the dataclass `kind`, sections included, in the order of the fields."""
    keys: list[str] = []
    for name, hint in _fields(kind).items():
        keys.append(name)
        keys += (
            [f"{name}.{key}" for key in valid_keys(hint)] if dataclasses.is_dataclass(hint) else []
        )
    return tuple(keys)


def unknown_key(kind: type, key: str) -> ConfigError:
    """The error for a dotted `key` that `kind` does not have.

    Nearest to it is the same name in another section, else whatever is spelled most alike.
    """
    keys = valid_keys(kind)
    section, _, leaf = key.rpartition(".")
    names = [k for k in keys if k.rpartition(".")[0] == section] or [
        k for k in keys if "." not in k
    ]
    nearest = [k for k in keys if k.rpartition(".")[2] == leaf] or difflib.get_close_matches(
        key, keys, 1
    )
    return ConfigError(key, "an unknown key", ", ".join(names), nearest[0] if nearest else None)


def _refuse_unknown(whole: type, kind: type, values: Any, prefix: str) -> None:
    for name, value in values.items() if isinstance(values, dict) else ():
        if name not in _fields(kind):
            raise unknown_key(whole, f"{prefix}{name}")
        if dataclasses.is_dataclass(_fields(kind)[name]):
            _refuse_unknown(whole, _fields(kind)[name], value, f"{prefix}{name}.")


def _section(kind: type, value: Any, key: str) -> Any:
    fields = _fields(kind)
    if not isinstance(value, dict):
        raise ConfigError(
            key or "(file)", _words(value), "a mapping with the keys " + ", ".join(fields)
        )
    prefix = f"{key}." if key else ""
    for name in fields:
        if name not in value:
            raise ConfigError(prefix + name, "nothing", "every key of this section must be given")
    return kind(**{name: _value(hint, value[name], prefix + name) for name, hint in fields.items()})


def _value(kind: Any, value: Any, key: str) -> Any:
    origin = get_origin(kind)
    args = get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, key)
    if origin is Annotated:
        number = _value(args[0], value, key)
        if number not in args[1]:
            raise ConfigError(key, _words(value), f"{args[0].__name__} {args[1]}")
        return number
    if origin is Literal:
        return _choice(args, value, key)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(args[0], value, key)
    if origin is list:
        return _list((*args, Ellipsis), value, key, twice=True)
    if origin is tuple:
        return _list(args, value, key)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise ConfigError(key, _words(value), "a mapping from names to values")
        return {name: _value(args[1], item, f"{key}.{name}") for name, item in value.items()}
    return value if kind is Any else _scalar(kind, value, key)


def _choice(choices: tuple[str, ...], value: Any, key: str) -> str:
    if isinstance(value, str) and value in choices:
        return value
    quote = ' (YAML reads a bare no as false: write "no")' if isinstance(value, bool) else ""
    raise ConfigError(key, _words(value), " | ".join(choices) + quote)


def _list(args: tuple[Any, ...], value: Any, key: str, twice: bool = False) -> tuple[Any, ...]:
    free = args[-1] is Ellipsis
    if not isinstance(value, list | tuple) or (not value if free else len(value) != len(args)):
        raise ConfigError(
            key, _words(value), "a list of one or more" if free else f"a list of {len(args)}"
        )
    kinds = args[:1] * len(value) if free else args
    items = tuple(
        _value(kind, item, f"{key}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
    if free and not twice and any(item in items[:i] for i, item in enumerate(items)):
        raise ConfigError(key, _words(value), "a list in which nothing stands twice")
    return items


def _scalar(kind: type, value: Any, key: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and math.isfinite(value):
        return float(value)
    if kind is int and number and isinstance(value, int):
        return value
    if (kind is bool and isinstance(value, bool)) or (
        kind is str and isinstance(value, str) and value
    ):
        return value
    accepted = {float: "float, finite", int: "int", bool: "true or false", str: "text, not empty"}[
        kind
    ]
    if (
        kind is float
        and isinstance(value, str)
        and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", value, re.IGNORECASE)
    ):
        accepted += " (YAML reads this as text: write 1.0e-3, with point and sign)"
    raise ConfigError(key, _words(value), accepted)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _words(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
