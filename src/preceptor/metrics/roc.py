"""ROC curve, equal error rate and average precision.

A higher score means that the positive class is more probable, and an image is classified as
positive if `score >= threshold`.
Labels and scores are those of `auc`; metrics that are undefined are NaN, as there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preceptor.metrics.auc import Array, binary_scores


class RocCurve(NamedTuple):
    """Corners of an ROC curve, from (0, 0) at threshold infinity to (1, 1)."""

    fpr: Array
    tpr: Array
    thresholds: Array


class EqualError(NamedTuple):
    """Equal error rate and the threshold that is closest to it."""

    eer: float
    threshold: float


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> RocCurve:
    """ROC curve: false and true positive rate at each threshold, without collinear points.

    Returns:
        `fpr`, `tpr` and decreasing `thresholds`, the first of them infinity (no image is
        classified as positive). The rate of an absent class is NaN.
    """
    false, true, thresholds = _cumulative(labels, scores)
    keep = np.ones(len(false), dtype=bool)
    step_false, step_true = np.diff(false), np.diff(true)
    # Counts are integers, so that the cross product of neighbouring steps is exact.
    keep[1:-1] = step_false[:-1] * step_true[1:] != step_false[1:] * step_true[:-1]
    fpr, tpr = _rate(false)[keep], _rate(true)[keep]
    return RocCurve(fpr, tpr, thresholds[keep])


def equal_error_rate(labels: npt.ArrayLike, scores: npt.ArrayLike) -> EqualError:
    """Equal error rate: FPR = FNR on the ROC curve.

    The ROC curve is the line through the operating points of all distinct scores (not their
    convex hull); between two points both rates are interpolated linearly. A threshold can only
    realize an operating point: the returned one belongs to the neighboring point with the smaller
    |FPR − FNR| (ties: the one that classifies more images as positive), and lies in the middle of
    the gap between the two scores that give this point.

    Returns:
        `eer` in [0, 1] and `threshold`; NaN and NaN if a class is absent. Constant scores give
        0.5 and that score.

    Example:
        >>> equal_error_rate([False, False, True, True], [0.1, 0.2, 0.8, 0.9])
        EqualError(eer=0.0, threshold=0.5)
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
    """Average precision: Σ (R_k − R_{k−1}) P_k over the distinct thresholds.

    Returns:
        Average precision in (0, 1]; NaN without positive images, 1 without negative images.
    """
    false, true, _ = _cumulative(labels, scores)
    if not true[-1]:
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
