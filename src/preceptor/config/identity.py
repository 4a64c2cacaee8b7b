"""Which fields of a run's config are part of the run's id; a field is unless its type says other.

device: Annotated[Literal["auto", "cpu", "cuda"], NotIdentity()] = "auto"
alpha: Annotated[float, IdentityOf("guidance")] = 0.5
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Use = Literal["guidance", "human maps", "other maps"]
"""Uses of a run's settings: a guidance term, human maps that guide, other maps that guide."""


@dataclass(frozen=True)
class NotIdentity:
    """Marks a field that is never part of the id.

    It says where or how a run is computed but not what, or the content of the files and rows that
    it names is hashed in its place.
    """


@dataclass(frozen=True)
class IdentityOf:
    """Marks a field that is part of the id only of runs with this use."""

    use: Use


def is_identity(field: FieldInfo, uses: Collection[Use]) -> bool:
    """Whether a field is part of the id of a run with these uses."""
    return not any(
        isinstance(mark, NotIdentity) or (isinstance(mark, IdentityOf) and mark.use not in uses)
        for mark in field.metadata
    )


def identity_values(config: BaseModel, uses: Collection[Use]) -> dict[str, Any]:
    """The values that are part of a run's id, those that are defaults left out.

    Args:
        config: The resolved config of the run.
        uses: The uses that the run has for its settings.
    """
    # Defaults are left out, so that a field added later leaves the ids of earlier runs as they are.
    return _identity(config, config.model_dump(mode="json", exclude_defaults=True), uses)


def _identity(
    config: BaseModel, values: Mapping[str, Any], uses: Collection[Use]
) -> dict[str, Any]:
    found = {}
    for name, field in type(config).model_fields.items():
        if name in values and is_identity(field, uses):
            inner = getattr(config, name)
            nested = isinstance(inner, BaseModel)
            found[name] = _identity(inner, values[name], uses) if nested else values[name]
    return found
