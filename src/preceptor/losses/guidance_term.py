"""Guidance term of the guided loss: the distance of the model's saliency from a map."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from preceptor.config.guidance import (
    DISTANCE_NAMES,
    Distance,
    Distances,
    distance_weights,
    takes_masks,
)
from preceptor.losses.distances import DISTANCES, MapDistance
from preceptor.losses.evidence import EVIDENCE_DISTANCES, WHOLE_MASKS, cells
from preceptor.runtime.plugins import load_plugin, plugin
from preceptor.saliency.normalise import informative, normalise

MARK_WEIGHT = 9.0  # additional weight of a marked cell in the distance cells


def guidance(cam: Tensor, maps: Tensor, distance: Distances = "l2") -> Tensor:
    """Distance of each image's saliency from its map.

    l2 is the norm of the flattened difference of the normalized maps, as in the CYBORG paper; mse
    is the mean square, as in the authors' released code. Their gradients differ in size: per image,
    l2 has gradient norm 1, mse 2‖d‖ ÷ (h·w).

    Args:
        cam: (B, h, w) raw saliency of the model; gradients flow into it. For cells, evidence,
            energy and cosine: the evidence of the cells, which is the decision map plus the bias.
        maps: (B, h, w) on the same grid. Of any scale for distances between normalized maps; in
            [0, 1] for the others.
        distance: l2, mse, l1, kl or dice (`preceptor.losses.distances`); cells, evidence, energy
            or cosine (`preceptor.losses.evidence`); or several with their weights.

    Returns:
        (B,) distances ≥ 0.

    Raises:
        ValueError: The shapes differ (nothing is broadcast), the distance is unknown, or a mask
            has values outside [0, 1].

    Example:
        >>> a = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
        >>> guidance(a, a.flip(2))
        tensor([1.4142])
        >>> guidance(a, a.flip(2), {"l2": 0.5, "energy": 2.0})
        tensor([2.7071])
    """
    check_masks(maps, distance)
    pair = paired(cam, maps)
    every = torch.ones(len(cam), dtype=torch.bool, device=cam.device)
    return distance_of(pair, distance, dict.fromkeys(parts_of(distance), every), MARK_WEIGHT)


class MapPair(NamedTuple):
    """Saliency of the model and target maps, as the distances take them.

    Args:
        model: (B, h, w) normalized saliency in [0, 1]; gradients flow through it into the CAM.
        target: (B, h, w) normalized maps in [0, 1]; zeros for images without guidance.
        evidence: (B, h, w) raw saliency of the model.
        mask: (B, h, w) maps as given; zeros for images without guidance.
    """

    model: Tensor
    target: Tensor
    evidence: Tensor
    mask: Tensor


def paired(cam: Tensor, maps: Tensor) -> MapPair:
    """Saliency and maps, (B, h, w) each, as the distances take them."""
    if cam.shape != maps.shape or cam.ndim != 3:
        raise ValueError(
            f"cam {tuple(cam.shape)} and maps {tuple(maps.shape)} must both be (B, h, w)"
        )
    maps = maps if maps.is_floating_point() else maps.to(cam.dtype)
    return MapPair(normalise(cam), normalise(maps), cam, maps)


def parts_of(distance: Distances) -> dict[Distance, float]:
    """Weight of each distance.

    Raises:
        ValueError: A distance is unknown.
    """
    parts = distance_weights(distance)
    for name in parts:
        if name not in DISTANCE_NAMES.own:
            _plugin_distance(name)
    return parts


def usable_by(name: Distance, maps: Tensor) -> Tensor:
    """(B,) whether each map can guide by this distance: finite, and not constant.

    For cells and evidence, a mask that is constant but not zero can: evidence for the label lies
    everywhere. Zeros cannot: a crop without the mark does not refute the label.
    """
    if name in WHOLE_MASKS:
        maps = maps if maps.is_floating_point() else maps.float()
        highest = maps.amax((-2, -1))
        return (highest > 0) & torch.isfinite(highest - maps.amin((-2, -1)))
    return informative(maps)


def distance_of(
    pair: MapPair, distance: Distances, usable: Mapping[Distance, Tensor], mark_weight: float
) -> Tensor:
    """(B,) weighted sum of the distances; 0 where the map cannot guide by a distance."""
    total: Tensor | None = None
    for name, weight in parts_of(distance).items():
        if name == "cells":
            found = cells(pair.evidence, pair.mask, mark_weight)
        elif name in EVIDENCE_DISTANCES:
            found = EVIDENCE_DISTANCES[name](pair.evidence, pair.mask)
        else:
            found = _normalized_distance(name)(pair.model, pair.target)
        if weight != 1:
            found = found * weight
        found = torch.where(usable[name], found, 0)
        total = found if total is None else total + found
    assert total is not None
    return total


def _normalized_distance(name: str) -> MapDistance:
    """Distance of maps scaled to [0, 1], of this library or of a plugin."""
    if name in DISTANCES:
        return DISTANCES[name]
    return _plugin_distance(name)


@cache
def _plugin_distance(name: str) -> MapDistance:
    found = plugin("preceptor.distances", name)
    if found is None:
        raise ValueError(f"distance {name!r} is not one of {', '.join(DISTANCE_NAMES.all)}")
    loaded: MapDistance = load_plugin(found)
    return loaded


def check_masks(maps: Tensor, distance: Distances, map_weight: Tensor | None = None) -> None:
    """Check that masks are in [0, 1]; other maps may have any scale.

    Maps of weight 0 may have any value. Compiled code does not check: a condition on values would
    divide its graph.

    Args:
        maps: (B, h, w) maps.
        distance: Distance, or several with their weights.
        map_weight: (B,) w_k ≥ 0; None = 1.

    Raises:
        ValueError: A distance takes masks, and a map has values outside [0, 1].
    """
    if not takes_masks(distance) or torch.compiler.is_compiling():
        return
    if map_weight is not None:
        maps = maps[map_weight > 0]
    if maps.numel() and (maps.amin() < 0 or maps.amax() > 1):
        raise ValueError(
            f"maps have values from {maps.amin():g} to {maps.amax():g}, and distance {distance} "
            "takes masks in [0, 1]; divide them by their maximum"
        )
