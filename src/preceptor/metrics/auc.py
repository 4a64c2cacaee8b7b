"""ROC curve, area under it (of a set and of many resamples), equal error rate, average precision.

Labels are (n,) bool, true for the positive class, with (n,) scores, higher for the positive
class; or (n,) class indices in [0, C) with (n, C) scores. Counts are (R, n): how often each of R
resamples contains each image. Metrics that are undefined on the data (no images, or one class only)
are NaN. Scores that are NaN, and shapes or labels that do not match, raise `InputError`. An image
is classified as positive if `score >= threshold`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError

Array: TypeAlias = npt.NDArray[np.float64]


def binary_scores(
    labels: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Array]:
    """Labels and scores of one class, checked."""
    given, values = _scores(labels, scores, 1)
    if given.dtype != np.bool_ and not np.isin(given, (0, 1)).all():
        raise InputError("labels must be true or false (1 or 0), true for the positive class")
    return given.astype(np.bool_), values


def class_scores(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], Array]:
    """Class indices and scores of all classes, checked."""
    given, values = _scores(labels, probabilities, 2)
    fits = given.dtype.kind in "biu" or not given.size  # floats would be cut to class indices
    classes = given.astype(np.int64)
    if not fits or ((classes < 0) | (classes >= values.shape[1])).any():
        raise InputError(f"labels must be class indices from 0 to {values.shape[1] - 1}")
    return classes, values


def _scores(
    labels: npt.ArrayLike, scores: npt.ArrayLike, dimensions: int
) -> tuple[npt.NDArray[Any], Array]:
    given, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if values.ndim != dimensions:
        raise InputError(f"scores must have {dimensions} dimension(s), not shape {values.shape}")
    missing = np.asarray(np.isnan(values).any(axis=tuple(range(1, dimensions))))
    if missing.any():
        raise InputError(
            f"{missing.sum():,} of {len(values):,} scores are NaN, the first at position "
            f"{missing.argmax()}; the model diverged or its scores are damaged"
        )
    if given.shape != values.shape[:1]:
        raise InputError(f"labels of shape {given.shape} do not fit scores of {values.shape}")
    return given, values


def image_counts(counts: npt.ArrayLike, length: int) -> npt.NDArray[Any]:
    """Counts of images by resample, checked."""
    weights = np.asarray(counts)
    if weights.ndim != 2 or (length and weights.shape[1] != length):
        raise InputError(f"counts of shape {weights.shape} do not fit {length} scores")
    return weights


_BLOCK = 131_072  # counts per block: 1 MiB, so that the passes over a block stay in the L2 cache


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: P(positive scores higher than negative), ties counted one half."""
    positive, values = binary_scores(labels, scores)
    negatives, positives = np.sort(values[~positive]), np.sort(values[positive])
    if not len(negatives) or not len(positives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left").sum()
    through = np.searchsorted(negatives, positives, side="right").sum()
    return float(below + through) / (2.0 * len(negatives) * len(positives))


def auc_weighted(labels: npt.ArrayLike, scores: npt.ArrayLike, counts: npt.ArrayLike) -> Array:
    """Area under the ROC curve of the sets in which image i occurs counts[r, i] times."""
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
    """Mean one-vs-rest AUC over the classes present; for two classes, that of the second."""
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
    """`macro_auc` of many resamples, each over the classes that it contains."""
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
    """Log-odds of each class against all others: log p_c − log Σ_{k≠c} p_k."""
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
    odds: Array = np.log(np.maximum(given, _SMALLEST)) - np.log(np.maximum(others, _SMALLEST))
    return odds


class EqualError(NamedTuple):
    """Equal error rate and the threshold that is closest to it."""

    eer: float
    threshold: float


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    """ROC curve: false and true positive rate at each threshold, from (0, 0) to (1, 1)."""
    false, true, _ = _cumulative(labels, scores)
    return _rate(false), _rate(true)


def equal_error_rate(labels: npt.ArrayLike, scores: npt.ArrayLike) -> EqualError:
    """Equal error rate: FPR = FNR on the ROC curve.

    Between the operating points of all distinct scores both rates are interpolated linearly. The
    threshold is that of the neighboring point with the smaller |FPR − FNR| (ties: the one with more
    positives), in the middle of the gap between the two scores that give this point.
    """
    false, true, thresholds = _cumulative(labels, scores)
    if not false[-1] or not true[-1]:
        return EqualError(float("nan"), float("nan"))
    fpr = _rate(false)
    # The sign is taken from integers: a rounding error must not move the crossing.
    exact = false * true[-1] - (true[-1] - true) * false[-1]
    after = int(np.argmax(exact >= 0))
    before = after - 1  # exact[0] < 0 always: no image is classified as positive there
    share = -exact[before] / (exact[after] - exact[before])
    eer = fpr[before] + share * (fpr[after] - fpr[before])
    nearest = before if -exact[before] < exact[after] else after
    return EqualError(float(eer), _mid_gap(thresholds, nearest))


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision: Σ (R_k − R_{k−1}) P_k over the distinct thresholds; NaN of one class."""
    false, true, _ = _cumulative(labels, scores)
    if not (true[-1] and false[-1]):
        return float("nan")
    precision = true[1:] / (true[1:] + false[1:])
    return float(np.sum(np.diff(true) / true[-1] * precision))


def _cumulative(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """False and true positive counts at infinity and at each distinct score, in falling order."""
    positive, values = binary_scores(labels, scores)
    order = np.argsort(-values, kind="stable")
    values, positive = values[order], positive[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], [True] * (len(values) > 0)))
    true = np.cumsum(positive, dtype=np.float64)[last]  # float64: exact, and products fit
    false = np.cumsum(~positive, dtype=np.float64)[last]
    start = [0.0]
    return np.append(start, false), np.append(start, true), np.append([np.inf], values[last])


def _rate(counts: Array) -> Array:
    return counts / (counts[-1] or np.nan)


def _mid_gap(thresholds: Array, index: int) -> float:
    """Middle between a score and the next lower one, or the score itself if it is the lowest."""
    here = float(thresholds[index])
    if index + 1 == len(thresholds):
        return here
    lower = float(thresholds[index + 1])
    middle = 0.5 * here + 0.5 * lower
    return middle if lower < middle < here else here  # infinite, or adjacent floats
