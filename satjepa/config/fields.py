"""The types of fields: a section is strict (no unknown key, no guessed type) and frozen."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from satjepa.config.errors import refuse

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of params.yaml: every key is given, none is unknown, no value is of a guessed type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


def _from_list(value: Any) -> Any:
    """YAML has lists; a frozen section holds tuples."""
    return tuple(value) if isinstance(value, list) else value


def _once_each(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise refuse("", list(values), "a list in which nothing stands twice")
    return values


def _that_stays(value: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", value):
        raise refuse("", value, "the 40 hexadecimal digits of a commit: a branch or tag may move")
    return value


FROM_LIST = BeforeValidator(_from_list)
Commit = Annotated[str, AfterValidator(_that_stays)]
Several = Annotated[tuple[T, ...], FROM_LIST, Field(min_length=1)]
Distinct = Annotated[Several[T], AfterValidator(_once_each)]
Pair = Annotated[tuple[T, T], FROM_LIST]
Triple = Annotated[tuple[T, T, T], FROM_LIST]
