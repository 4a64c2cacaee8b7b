"""Config fields that are part of a run's id: all fields, except those annotated otherwise.

device: Annotated[Literal["auto", "cpu", "cuda"], NotIdentity()] = "auto"
alpha: Annotated[float, IdentityOf("guidance")] = 0.5
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Use = Literal["maps", "guidance", "cam class", "outside", "human maps", "other maps"]
"""Uses of a run's settings: maps, in a guidance term or in input space; the class of the model's
maps, in a guidance term or in the measured agreement; human maps, other maps."""


@dataclass(frozen=True)
class NotIdentity:
    """Annotation of a field that is never part of the id.

    The field determines where or how a run is computed, but not the result; or the content of its
    files and rows is hashed instead.
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
    """Non-default values that are part of a run's id.

    Args:
        config: Resolved config of the run.
        uses: Uses of the settings in the run.
    """
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
