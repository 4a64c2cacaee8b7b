"""Distances of the guidance term, the map that is guided, and its pooling: names and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from preceptor.config.names import Names

NormalizedDistance = Literal["l2", "mse", "l1", "kl", "dice"]  # between maps scaled to [0, 1]
EvidenceDistance = Literal["cells", "evidence", "energy", "cosine"]  # of evidence from a mask
DISTANCE_NAMES = Names(
    (*get_args(NormalizedDistance), *get_args(EvidenceDistance)), "preceptor.distances"
)
# One of this library's, or of a plugin, which compares maps scaled to [0, 1].
Distance = Annotated[str, AfterValidator(DISTANCE_NAMES.check)]
# One distance, or several with their weights.
Distances = Distance | Mapping[Distance, Annotated[float, Field(gt=0)]]
CamClass = Literal["label", "predicted", "decision"]
PoolKind = Literal["mean", "top", "lse"]


def distance_weights(distance: Distances) -> dict[Distance, float]:
    """Weight of each distance of a setting; 1 for a single one."""
    return dict(distance) if isinstance(distance, Mapping) else {distance: 1.0}


def takes_masks(distance: Distances) -> bool:
    """Whether a distance, or one of several, compares evidence with a mask in [0, 1]."""
    return any(name in get_args(EvidenceDistance) for name in distance_weights(distance))
