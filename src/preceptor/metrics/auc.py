"""Area under the ROC curve, of a set and of many resamples of it, and log-odds, which rank images.

Labels are (n,) bool, true for the positive class, with (n,) scores, higher for the positive
class; or (n,) class indices in [0, C) with (n, C) scores. Counts are (R, n): how often each of R
resamples contains each image. Metrics that are undefined on the data (no images, or one class only)
are NaN. Scores that are NaN, and shapes or labels that do not match, raise `InputError`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError

Array: TypeAlias = npt.NDArray[np.float64]


def binary_scores(
    labels: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Array]:
    """Labels and scores of one class, checked."""
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
    """Class indices and scores of all classes, checked."""
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


_BLOCK = 131_072  # counts per block: 1 MiB, so that the passes over a block stay in the L2 cache


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: P(positive scores higher than negative), ties counted one half.

    Returns:
        AUC in [0, 1]; NaN if a class is absent.

    Reference:
        Hanley and McNeil, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve", Radiology 1982.

    Example:
        >>> auc([False, False, True, True], [0.1, 0.4, 0.4, 0.8])
        0.875
    """
    positive, values = binary_scores(labels, scores)
    negatives, positives = np.sort(values[~positive]), np.sort(values[positive])
    if not len(negatives) or not len(positives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left").sum()
    through = np.searchsorted(negatives, positives, side="right").sum()
    return float(below + through) / (2.0 * len(negatives) * len(positives))


def auc_weighted(labels: npt.ArrayLike, scores: npt.ArrayLike, counts: npt.ArrayLike) -> Array:
    """Area under the ROC curve of many resamples of the same images.

    With integer counts c, row r equals `auc` of the set in which image i occurs c[r, i] times.
    The scores are sorted once; each resample then costs one cumulative sum.

    Returns:
        (R,) AUCs; NaN in rows with one class only.
    """
    positive, values = binary_scores(labels, scores)
    weights = image_counts(counts, len(values))
    order = np.argsort(values, kind="stable")
    up, down = order[positive[order]], order[~positive[order]]
    left = np.searchsorted(values[down], values[up], side="left")
    right = np.searchsorted(values[down], values[up], side="right")
    tied = bool((left != right).any())

    areas = np.empty(len(weights))
    rows = max(1, _BLOCK // max(1, len(values)))
    for start in range(0, len(weights), rows):
        block = weights[start : start + rows]
        of_up = block[:, up]
        prefix = np.zeros((len(block), len(down) + 1))  # negative weight below each position
        np.cumsum(block[:, down], axis=1, out=prefix[:, 1:])
        below = prefix[:, left]
        below = below + prefix[:, right] if tied else below * 2.0
        pairs = 2.0 * of_up.sum(axis=1, dtype=np.float64) * prefix[:, -1]
        won = np.einsum("rp,rp->r", of_up, below)
        with np.errstate(invalid="ignore"):
            areas[start : start + rows] = won / np.where(pairs > 0, pairs, np.nan)
    return areas


def macro_auc(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Macro-averaged one-vs-rest area under the ROC curve, over the classes present.

    For two classes this is `auc` with the second column (for probabilities, the first column
    gives the same number).

    Returns:
        AUC in [0, 1]; NaN if fewer than two classes are present.
    """
    classes, values = class_scores(labels, probabilities)
    if values.shape[1] == 2:
        return auc(classes == 1, values[:, 1])
    present = np.unique(classes)
    if len(present) < 2:
        return float("nan")
    return float(np.mean([auc(classes == c, values[:, c]) for c in present]))


def macro_auc_weighted(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, counts: npt.ArrayLike
) -> Array:
    """`macro_auc` of many resamples, each over the classes that it contains.

    Returns:
        (R,) AUCs; NaN in rows with fewer than two classes.
    """
    classes, values = class_scores(labels, probabilities)
    if values.shape[1] == 2:
        return auc_weighted(classes == 1, values[:, 1], counts)
    areas = [auc_weighted(classes == c, values[:, c], counts) for c in np.unique(classes)]
    if not areas:
        return np.full(len(image_counts(counts, 0)), np.nan)
    stacked = np.stack(areas)
    held = ~np.isnan(stacked)
    total = np.where(held, stacked, 0.0).sum(axis=0)
    mean: Array = total / np.where(held.any(axis=0), held.sum(axis=0), np.nan)
    return mean


_SMALLEST = 5e-324  # the smallest positive float64: a probability of 0 has log-odds of −744
_TOLERANCE = 1e-3


def log_odds(probabilities: npt.ArrayLike) -> Array:
    """Log-odds of each class against all others: log p_c − log Σ_{k≠c} p_k.

    Args:
        probabilities: (n, C) probabilities of all classes, C ≥ 2. Scores that are no probabilities
            (below 0, or with a sum other than 1 in a row) are returned as they are.

    Returns:
        (n, C) float64, finite for probabilities.

    Example:
        >>> log_odds([[1.0, 1e-20], [1.0, 1e-30]]).round(2).tolist()
        [[46.05, -46.05], [69.08, -69.08]]
    """
    given = np.asarray(probabilities, np.float64)
    total = given.sum(axis=1, keepdims=True)
    if not ((given >= 0).all() and (np.abs(total - 1) < _TOLERANCE).all()):
        return given
    others = total - given
    # Not by subtraction where a class has nearly everything: the sum of the small ones is exact.
    rows, top = np.arange(len(given)), given.argmax(axis=1)
    small = given.copy()
    small[rows, top] = 0
    others[rows, top] = small.sum(axis=1)
    found: Array = np.log(np.maximum(given, _SMALLEST)) - np.log(np.maximum(others, _SMALLEST))
    return found
