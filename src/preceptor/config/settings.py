"""Base class of all configs, and the types of their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
# Upper bounds, so that a typing error does not exhaust memory or give an endless plan.
Few = Annotated[int, Field(gt=0, le=100)]
Side = Annotated[int, Field(gt=0, le=8192)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Amount = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, le=1)]


class Settings(BaseModel):
    """Base class of frozen configs; unknown keys, and booleans as numbers, are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject booleans as numbers: Python converts `batch_size: true` (or `yes`) to 1."""
        assert info.field_name is not None
        kinds = set(plain_types(cls.model_fields[info.field_name].annotation))
        if kinds & {int, float} and bool not in kinds and _holds_truth_value(value):
            raise PydanticCustomError("number_type", "a number is expected")
        return value


def plain_types(annotation: Any) -> Iterator[type]:
    """Plain types in an annotation, including those in unions, lists and literals."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield type(part)
        else:
            yield from plain_types(part)


def _holds_truth_value(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_truth_value, value))
    return isinstance(value, bool)
