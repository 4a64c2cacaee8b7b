"""Recommended settings of the method, for the settings that `recipe: recommended` leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preceptor.config.training import Training

# Frozen before the study of small forged regions was run (benchmarks/evidence/spots_evidence), in
# which
# Students were above the network without maps and above any map. Optimizer, length and sizes depend
# on the data and the network, and are not part of it.
RECOMMENDED: dict[str, Any] = {
    "alphas": (0.5, 0.1),
    "teacher_alphas": (0.1,),
    "mapper": True,
    "controls": ("shuffled", "centre", "pca", "shuffled_human", "mixed"),
}
RECOMMENDED_TRAINING: dict[str, Any] = {
    "distance": "l2",
    "cam_class": "label",
    "pool": "mean",
    "readout": "auto",
}


def with_recommended(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a study with the recommended ones for those that are not given.

    Args:
        given: Settings as in a study file; `training` may also be an object.

    Returns:
        New settings.

    Example:
        >>> found = with_recommended({"alphas": (0.2,), "training": {"epochs": 3}})
        >>> found["alphas"], found["mapper"], found["training"]["readout"]
        ((0.2,), True, 'auto')
    """
    training = given.get("training", {})
    if isinstance(training, Training):
        training = {name: getattr(training, name) for name in training.model_fields_set}
    if isinstance(training, Mapping):
        training = RECOMMENDED_TRAINING | dict(training)
    return RECOMMENDED | dict(given) | {"training": training}
