"""Base class of all configs; which fields are part of a run's id; numbers, paths, names.

Every field is part of the id. A `NotIdentity` field is not; an `IdentityOf` field is part of it in
runs with the named use.
"""

# os.path and not Path.resolve(): a manifest's paths start from where it is linked.
# ruff: noqa: PTH111

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
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
    def _no_boolean_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # Python converts `batch_size: true` (or `yes`) to 1.
        assert info.field_name is not None
        kinds = set(plain_types(cls.model_fields[info.field_name].annotation))
        if kinds & {int, float} and bool not in kinds and _holds_boolean(value):
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


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_boolean, value))
    return isinstance(value, bool)


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Path that starts at the folder in the context, or the working one, with `~` expanded."""
    return Path(os.path.normpath((info.context or Path.cwd()) / os.path.expanduser(path)))


def _absolute_file(weights: str, info: ValidationInfo) -> str:
    return weights if weights in ("hub", "none", "") else str(_absolute(Path(weights), info))


ConfigPath = Annotated[Path, AfterValidator(_absolute)]
Weights = Annotated[str, AfterValidator(_absolute_file)]  # hub, none, or a path as `ConfigPath`


@dataclass(frozen=True)
class Names:
    """Names that a key of a config takes."""

    own: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.own

    def check(self, name: str) -> str:
        """The name, for a validator of pydantic."""
        if name not in self:
            raise PydanticCustomError("name", f"not one of {', '.join(self.own)}")
        return name


# A function, as package.module:function.
FunctionName = Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")]


class NetworkFactory(Settings):
    """Function that creates a network, see `models.custom`.

    Args:
        factory: The function, as package.module:function.
        args: Further arguments of the function.
    """

    factory: FunctionName
    args: Mapping[str, Any] = {}


Fit = Literal["squash", "letterbox", "crop"]


@dataclass(frozen=True)
class ImageFormat:
    """Size, fit and channels of a model's input."""

    size: int  # side of the square input in pixels
    fit: Fit = "squash"  # aspect ignored; letterbox: kept; crop: central square
    channels: int = 3  # color; 1 = grayscale
    canvas: int | None = None  # larger side of the stored image, for random crops; None = `size`

    @property
    def side(self) -> int:
        """Side of the stored square image, in pixels."""
        return self.canvas or self.size


# Uses of settings in a run: maps, in a guidance term or in input space; the class of the model's
# maps, in a guidance term or in the measured agreement.
Use = Literal["maps", "guidance", "cam class", "outside"]


@dataclass(frozen=True)
class NotIdentity:
    """Field that is not part of the id: it changes no result, or its content is hashed instead."""


@dataclass(frozen=True)
class IdentityOf:
    """Field that is part of the id only in runs with a given use."""

    use: Use


def is_identity(field: FieldInfo, uses: Collection[Use]) -> bool:
    """Whether a field is part of the id of a run with these uses."""
    return not any(
        isinstance(mark, NotIdentity) or (isinstance(mark, IdentityOf) and mark.use not in uses)
        for mark in field.metadata
    )


def identity_values(config: BaseModel, uses: Collection[Use]) -> dict[str, Any]:
    """Values that are part of a run's id; without defaults, so that new fields change no id."""
    return _identity(config, config.model_dump(mode="json", exclude_defaults=True), uses)


def _identity(
    config: BaseModel, values: Mapping[str, Any], uses: Collection[Use]
) -> dict[str, Any]:
    identity = {}
    for name, field in type(config).model_fields.items():
        if name in values and is_identity(field, uses):
            inner = getattr(config, name)
            identity[name] = values[name]
            if isinstance(inner, BaseModel):
                identity[name] = _identity(inner, values[name], uses)
                if not identity[name] and isinstance(field.default, BaseModel):
                    del identity[name]  # as if it were not given
    return identity
