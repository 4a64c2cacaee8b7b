"""Maps of several annotators of one image, merged into one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preceptor.evaluation.staple import staple

Maps = NDArray[np.uint8]
"""uint8 of shape (annotators, height, width); all zero = examined, nothing marked."""


def mean(maps: Maps) -> Maps:
    """Mean of the maps: the share of annotators who marked a pixel.

    Example:
        >>> mean(np.array([[[255, 0]], [[255, 255]]], np.uint8)).tolist()
        [[255, 128]]
    """
    total = maps.sum(axis=0, dtype=np.uint32)
    rounded: Maps = ((2 * total + len(maps)) // (2 * len(maps))).astype(np.uint8)
    return rounded


def majority(maps: Maps) -> Maps:
    """255 where more than half of the annotators marked a pixel (a value of 128 or more).

    Example:
        >>> majority(np.array([[[255, 0]], [[255, 255]]], np.uint8)).tolist()
        [[255, 0]]
    """
    votes = (maps >= 128).sum(axis=0)
    return np.where(2 * votes > len(maps), 255, 0).astype(np.uint8)


def anyone(maps: Maps) -> Maps:
    """Largest value: the region that at least one annotator marked.

    Example:
        >>> anyone(np.array([[[255, 0]], [[255, 255]]], np.uint8)).tolist()
        [[255, 255]]
    """
    largest: Maps = maps.max(axis=0)
    return largest


def most_probable(maps: Maps) -> Maps:
    """Probability of a mark by STAPLE, from maps cut at 128; 255 = certain.

    The prior is the share of marked pixels over all annotators, the same in all pixels.

    Example:
        >>> most_probable(np.array([[[255, 0]], [[255, 0]], [[0, 255]]], np.uint8)).tolist()
        [[255, 0]]
    """
    return np.rint(staple(maps >= 128).probability * 255).astype(np.uint8)


MERGES: dict[str, Callable[[Maps], Maps]] = {
    "mean": mean,
    "majority": majority,
    "any": anyone,
    "staple": most_probable,
}
"""Functions by the name of `--merge`; of one map, each returns a map of the same region."""
