"""Area under the ROC curve, of one set and of many resamples of it.

Metrics that are undefined on the data (no images, or one class only) are NaN; scores that are NaN
are invalid input and raise `InputError`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preceptor.evaluation.arrays import Array
from preceptor.evaluation.checked_scores import binary_scores, class_scores, image_counts

_BLOCK = 131_072  # counts per block: 1 MiB, so that the passes over a block stay in the L2 cache


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: P(positive scores higher than negative), ties counted one half.

    Args:
        labels: (n,) bool (or 0 and 1), true for the positive class.
        scores: (n,) scores, higher for the positive class.

    Returns:
        AUC in [0, 1]; NaN if a class is absent.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

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

    Args:
        labels: (n,) bool, true for the positive class.
        scores: (n,) scores, higher for the positive class.
        counts: (R, n) number of times each resample contains each image, or any weights >= 0.

    Returns:
        (R,) AUCs; NaN in rows with one class only.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

    Example:
        >>> auc_weighted([False, False, True], [0.1, 0.5, 0.3], [[1, 1, 1], [3, 1, 2], [1, 1, 0]])
        array([0.5 , 0.75,  nan])
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

    Args:
        labels: (n,) class indices in [0, C).
        probabilities: (n, C) one score per class.

    Returns:
        AUC in [0, 1]; NaN if fewer than two classes are present.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

    Example:
        >>> p = [[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.4, 0.3, 0.3], [0.1, 0.2, 0.7]]
        >>> round(macro_auc([0, 1, 2, 2], p), 4)
        1.0
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

    Args:
        labels: (n,) class indices in [0, C).
        probabilities: (n, C) a score per class.
        counts: (R, n) number of times each resample contains each image.

    Returns:
        (R,) AUCs; NaN in rows with fewer than two classes.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

    Example:
        >>> p = [[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]]
        >>> macro_auc_weighted([0, 1, 2], p, [[1, 1, 1], [1, 2, 0]])
        array([1., 1.])
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
