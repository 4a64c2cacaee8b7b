"""Committees: the mean map of several Teachers, and their agreement on each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.maps.store import MapStore
from preceptor.saliency.agreement import correlation


def mean_store(stores: Sequence[MapStore]) -> MapStore:
    """Mean of the map stores of several Teachers for the same images.

    Args:
        stores: Map stores, at least one, with normalized maps of the same classes on one grid over
            one canvas, for the same paths in the same order.

    Returns:
        Mean maps (not normalized again, since their maximum reflects the agreement of the members),
        mean scores and, if every member has them, mean probabilities. `agreement` is the mean
        correlation of the maps over the pairs of members, 0 for a pair with a constant map; None
        for a single store. `error` is the mean error: the members of a study use the same masks, so
        that their noise is not independent, and the mean map has about as much of it as each of
        them. Teacher ids are joined by "+"; method and settings are those of the first store.

    Raises:
        InputError: There is no store, or the stores cannot be averaged; the message has the
            difference.

    Example:
        >>> from preceptor.maps.store import StoreInfo
        >>> def one(teacher, values):
        ...     info = StoreInfo(teacher, "cam", "squash", 64, ("real", "fake"), {})
        ...     maps = np.array([values], np.float16)
        ...     return MapStore(info, np.array(["a.png"], object), maps,
        ...                     np.array([1], np.int32), np.array([0.5], np.float32))
        >>> store = mean_store([one("s0", [[0, 1], [0, 1]]), one("s1", [[0, 1], [1, 0]])])
        >>> store.info.teacher, store.maps.tolist(), store.agreement.tolist()
        ('s0+s1', [[[0.0, 1.0], [0.5, 0.5]]], [0.0])
    """
    if not stores:
        raise InputError("committee: no map store to average; give at least one")
    first = stores[0]
    for other in stores[1:]:
        _check_alike(first, other)
    teacher = "+".join(one.info.teacher for one in stores)
    maps = np.mean([one.maps.astype(np.float32) for one in stores], axis=0)
    scores = np.mean([one.scores for one in stores], axis=0)
    errors = [one.error for one in stores if one.error is not None]
    known = [one.probabilities for one in stores if one.probabilities is not None]
    return MapStore(
        replace(first.info, teacher=teacher),
        first.paths,
        maps.astype(np.float16),
        first.classes,
        scores,
        np.mean(known, axis=0) if len(known) == len(stores) else None,
        _agreement([one.maps for one in stores]) if len(stores) > 1 else None,
        np.mean(errors, axis=0) if len(errors) == len(stores) else None,
    )


def _agreement(maps: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """(n,) mean correlation over the pairs of members with maps (n, h, w)."""
    pairs = list(combinations([torch.from_numpy(one.astype(np.float32)) for one in maps], 2))
    total = torch.zeros(len(maps[0]))
    for one, other in pairs:
        values, valid = correlation(one, other)
        total += torch.where(valid, values, 0)
    mean: NDArray[np.float32] = (total / len(pairs)).numpy()
    return mean


def _check_alike(first: MapStore, other: MapStore) -> None:
    """Check that two stores have the same images, grid, canvas and classes."""
    names = f"committee: the maps of {first.info.teacher} and {other.info.teacher}"
    grids = [
        f"{one.maps.shape[1]} × {one.maps.shape[2]} over {one.info.fit} at {one.info.side} px"
        for one in (first, other)
    ]
    if grids[0] != grids[1]:
        raise InputError(f"{names} lie on different grids: {grids[0]}, and {grids[1]}")
    if first.info.classes != other.info.classes:
        raise InputError(
            f"{names} have different classes: {list(first.info.classes)}, and "
            f"{list(other.info.classes)}"
        )
    if not np.array_equal(first.paths, other.paths):
        raise InputError(
            f"{names} differ in their images or in the order of images: {len(first.paths):,} and "
            f"{len(other.paths):,} images"
        )
    unlike = np.flatnonzero(first.classes != other.classes)
    if len(unlike):
        raise InputError(
            f"{names} have maps of different classes for {len(unlike):,} images, the first "
            f"{first.paths[unlike[0]]}; make the maps with cam_class: label"
        )
