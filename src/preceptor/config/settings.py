"""Base class of all configs; which fields are part of a run's id; numbers, paths, names.

All fields are part of the id, except those annotated otherwise:

    device: Annotated[Literal["auto", "cpu", "cuda"], NotIdentity()] = "auto"
    alpha: Annotated[float, IdentityOf("guidance")] = 0.5
"""

# os.path and not Path.resolve(): a manifest's paths start from where it is linked.
# ruff: noqa: PTH111

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from preceptor.utils.docstrings import argument_descriptions
from preceptor.utils.plugins import Group, plugin, registered

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


@dataclass(frozen=True)
class PathContext:
    """Validation context of a config read from a file."""

    folder: Path  # absolute base of relative paths

    def absolute(self, path: str | Path) -> Path:
        """Absolute path with `~` expanded, except for unknown users."""
        return Path(os.path.normpath(self.folder / os.path.expanduser(path)))


def _absolute(path: Path, info: ValidationInfo) -> Path:
    return info.context.absolute(path) if isinstance(info.context, PathContext) else path


def _absolute_file(weights: str, info: ValidationInfo) -> str:
    if weights in ("hub", "none", "") or not isinstance(info.context, PathContext):
        return weights
    return str(info.context.absolute(weights))


ConfigPath = Annotated[Path, AfterValidator(_absolute)]
"""A path that is absolute once the config has been read from a file."""

Weights = Annotated[str, AfterValidator(_absolute_file)]
"""hub, none, or a .safetensors file, whose path is treated as a `ConfigPath`."""


@dataclass(frozen=True)
class Names:
    """Names that a key of a config takes: those of this library, and of the installed plugins."""

    own: tuple[str, ...]
    group: Group  # entry points of the plugins

    @property
    def all(self) -> list[str]:
        """All names."""
        return [*self.own, *registered(self.group)]

    def __contains__(self, name: str) -> bool:
        return name in self.own or plugin(self.group, name) is not None

    def check(self, name: str) -> str:
        """The name, for a validator of pydantic; InputError if several packages offer it."""
        if name not in self:
            raise PydanticCustomError("name", f"not one of {', '.join(self.all)}")
        return name

    def functions(self, names: Iterable[str]) -> list[str]:
        """Functions of the names that are plugins', as package.module:function."""
        plugins = [plugin(self.group, name) for name in names if name not in self.own]
        return [one.value for one in plugins if one is not None]


FunctionName = Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")]
"""A function, as package.module:function."""


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
    """Size, fit and channels of a model's input.

    The stored square image has a larger side, `canvas`, if random crops need more detail than the
    input has.
    """

    size: int  # side of the square input in pixels
    fit: Fit = "squash"  # aspect ignored; letterbox: kept; crop: central square
    channels: int = 3  # color; 1 = grayscale
    canvas: int | None = None  # None = `size`

    @property
    def side(self) -> int:
        """Side of the stored square image, in pixels."""
        return self.canvas or self.size


Use = Literal["maps", "guidance", "cam class", "outside"]
"""Uses of a run's settings: maps, in a guidance term or in input space; the class of the model's
maps, in a guidance term or in the measured agreement."""


@dataclass(frozen=True)
class NotIdentity:
    """Annotation of a field that is never part of the id.

    It does not change the result, or the content of its files and rows is hashed instead.
    """


@dataclass(frozen=True)
class IdentityOf:
    """Annotation of a field that is part of the id only in runs with a given use."""

    use: Use


def is_identity(field: FieldInfo, uses: Collection[Use]) -> bool:
    """Whether a field is part of the id of a run with these uses."""
    return not any(
        isinstance(mark, NotIdentity) or (isinstance(mark, IdentityOf) and mark.use not in uses)
        for mark in field.metadata
    )


def identity_values(config: BaseModel, uses: Collection[Use]) -> dict[str, Any]:
    """Non-default values that are part of a run's id."""
    # Defaults are omitted, so that a new field does not change the ids of earlier runs.
    return _identity(config, config.model_dump(mode="json", exclude_defaults=True), uses)


def _identity(
    config: BaseModel, values: Mapping[str, Any], uses: Collection[Use]
) -> dict[str, Any]:
    found = {}
    for name, field in type(config).model_fields.items():
        if name in values and is_identity(field, uses):
            inner = getattr(config, name)
            found[name] = values[name]
            if isinstance(inner, BaseModel):
                found[name] = _identity(inner, values[name], uses)
                if not found[name] and isinstance(field.default, BaseModel):
                    del found[name]  # as if it were not given
    return found


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Description of each key of a config in the docstrings of its class and those above it."""
    texts: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        texts |= argument_descriptions(kind.__dict__.get("__doc__") or "")
    return {name: texts[name] for name in model.model_fields}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a config file, with the descriptions of its keys, for editors."""
    schema = model.model_json_schema(schema_generator=_Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


class _Described(GenerateJsonSchema):
    """JSON Schema with the descriptions of keys instead of those of whole docstrings."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Schema of a model."""
        described, model = super().model_schema(schema), schema["cls"]
        described["description"] = (inspect.getdoc(model) or "").split("\n")[0]
        for name, text in descriptions(model).items():
            key = described["properties"][name]
            key.pop("title", None)
            key["description"] = text
        return described
