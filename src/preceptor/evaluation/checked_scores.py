"""Checks of labels, scores and counts of resamples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError
from preceptor.evaluation.arrays import Array


def binary_scores(
    labels: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Array]:
    """Labels and scores of one class, checked.

    Args:
        labels: (n,) bool, or 0 and 1; true for the positive class.
        scores: (n,) scores.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.
    """
    values = _scores(scores, 1)
    given = np.asarray(labels)
    if given.shape != values.shape:
        raise InputError(f"labels of shape {given.shape} do not fit scores of {values.shape}")
    if given.dtype != np.bool_ and not np.isin(given, (0, 1)).all():
        raise InputError("labels must be true or false (1 or 0), true for the positive class")
    return given.astype(np.bool_), values


def class_scores(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], Array]:
    """Class indices and scores of all classes, checked.

    Args:
        labels: (n,) class indices in [0, C).
        probabilities: (n, C) one score per class.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.
    """
    values = _scores(probabilities, 2)
    given = np.asarray(labels)
    if given.shape != values.shape[:1]:
        raise InputError(f"labels of shape {given.shape} do not fit scores of {values.shape}")
    fits = given.dtype.kind in "biu" or not given.size  # floats would be cut to class indices
    classes = given.astype(np.int64)
    if not fits or ((classes < 0) | (classes >= values.shape[1])).any():
        raise InputError(f"labels must be class indices from 0 to {values.shape[1] - 1}")
    return classes, values


def image_counts(counts: npt.ArrayLike, length: int) -> npt.NDArray[Any]:
    """Counts of images by resample, checked.

    Args:
        counts: (R, n) number of times each resample contains each image.
        length: n; 0 = any.

    Raises:
        InputError: The shape does not match.
    """
    weights = np.asarray(counts)
    if weights.ndim != 2 or (length and weights.shape[1] != length):
        raise InputError(f"counts of shape {weights.shape} do not fit {length} scores")
    return weights


def _scores(scores: npt.ArrayLike, dimensions: int) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != dimensions:
        raise InputError(f"scores must have {dimensions} dimension(s), not shape {values.shape}")
    missing: npt.NDArray[np.bool_] = np.isnan(values)
    if dimensions == 2:
        missing = np.asarray(missing.any(axis=1))
    if missing.any():
        raise InputError(
            f"{missing.sum():,} of {len(values):,} scores are NaN, the first at position "
            f"{missing.argmax()}; the model diverged or its scores are damaged"
        )
    return values
