"""Classification metrics: AUC, ROC curve, EER, average precision, accuracy and Brier score.

Conventions: a higher score means that the positive class is more probable, and an image is
classified as positive if `score >= threshold`. Metrics that are undefined on the data (no images,
or one class only) are NaN; scores that are NaN are invalid input and raise `InputError`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError

Array: TypeAlias = npt.NDArray[np.float64]

_BLOCK = 131_072  # counts per block: 1 MiB, so that the passes over a block stay in the L2 cache


class RocCurve(NamedTuple):
    """Corners of an ROC curve, from (0, 0) at threshold infinity to (1, 1)."""

    fpr: Array
    tpr: Array
    thresholds: Array


class EqualError(NamedTuple):
    """Equal error rate and the threshold that is closest to it."""

    eer: float
    threshold: float


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
    positive, values = _binary(labels, scores)
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
    positive, values = _binary(labels, scores)
    weights = _counts(counts, len(values))
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
    classes, values = _multiclass(labels, probabilities)
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
    classes, values = _multiclass(labels, probabilities)
    if values.shape[1] == 2:
        return auc_weighted(classes == 1, values[:, 1], counts)
    areas = [auc_weighted(classes == c, values[:, c], counts) for c in np.unique(classes)]
    if not areas:
        return np.full(len(_counts(counts, 0)), np.nan)
    stacked = np.stack(areas)
    held = ~np.isnan(stacked)
    total = np.where(held, stacked, 0.0).sum(axis=0)
    mean: Array = total / np.where(held.any(axis=0), held.sum(axis=0), np.nan)
    return mean


def accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Share of images whose highest score is that of their label (ties: the first class).

    Args:
        labels: (n,) class indices in [0, C).
        probabilities: (n, C) a score per class.

    Returns:
        The share in [0, 1]; NaN without images.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

    Example:
        >>> accuracy([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        0.6666666666666666
    """
    classes, values = _multiclass(labels, probabilities)
    if not len(classes):
        return float("nan")
    return float(np.mean(values.argmax(axis=1) == classes))


def accuracy_weighted(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, counts: npt.ArrayLike
) -> Array:
    """`accuracy` of many resamples.

    Args:
        labels: (n,) class indices in [0, C).
        probabilities: (n, C) a score per class.
        counts: (R, n) number of times each resample contains each image.

    Returns:
        (R,) shares; NaN in empty rows.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

    Example:
        >>> accuracy_weighted([0, 1], [[0.9, 0.1], [0.6, 0.4]], [[1, 1], [3, 1]])
        array([0.5 , 0.75])
    """
    classes, values = _multiclass(labels, probabilities)
    weights = _counts(counts, len(values))
    right = weights @ (values.argmax(axis=1) == classes).astype(np.float64)
    total = weights.sum(axis=1, dtype=np.float64)
    share: Array = right / np.where(total > 0, total, np.nan)
    return share


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> RocCurve:
    """ROC curve: false and true positive rate at each threshold, without collinear points.

    Args:
        labels: (n,) bool, true for the positive class.
        scores: (n,) scores, higher for the positive class.

    Returns:
        `fpr`, `tpr` and decreasing `thresholds`, the first of them infinity (no image is
        classified as positive). The rate of an absent class is NaN.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

    Example:
        >>> roc_curve([False, True, False, True], [0.1, 0.3, 0.5, 0.9]).tpr
        array([0. , 0.5, 0.5, 1. , 1. ])
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

    Args:
        labels: (n,) bool, true for the positive class.
        scores: (n,) scores, higher for the positive class.

    Returns:
        `eer` in [0, 1] and `threshold`; NaN and NaN if a class is absent. Constant scores give
        0.5 and that score.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

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

    Args:
        labels: (n,) bool, true for the positive class.
        scores: (n,) scores, higher for the positive class.

    Returns:
        Average precision in (0, 1]; NaN without positive images, 1 without negative images.

    Raises:
        InputError: A score is NaN, or the shapes or labels do not match.

    Example:
        >>> round(average_precision([False, True, False, True], [0.1, 0.3, 0.5, 0.9]), 4)
        0.8333
    """
    false, true, _ = _cumulative(labels, scores)
    if not true[-1]:
        return float("nan")
    precision = true[1:] / (true[1:] + false[1:])
    return float(np.sum(np.diff(true) / true[-1] * precision))


def brier(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Brier score: the mean squared error of probabilities.

    (n,) probabilities of the positive class: 1/n Σ (p − y)², in [0, 1]. (n, C) probabilities:
    1/n Σ_i Σ_c (p_ic − [y_i = c])², in [0, 2], which is Brier's definition; for two classes it is
    twice the former.

    Args:
        labels: (n,) bool for (n,) probabilities, class indices for (n, C).
        probabilities: (n,) or (n, C), in [0, 1].

    Returns:
        The error, 0 at best; NaN without images.

    Raises:
        InputError: A probability is NaN or outside [0, 1], or the shapes or labels do not match.

    Reference:
        Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
        Review 1950.

    Example:
        >>> brier([False, True], [0.0, 0.5])
        0.125
    """
    if np.ndim(probabilities) == 2:
        classes, values = _multiclass(labels, probabilities)
        errors = ((values - np.eye(values.shape[1])[classes]) ** 2).sum(axis=1)
    else:
        positive, values = _binary(labels, probabilities)
        errors = (values - positive) ** 2
    if ((values < 0) | (values > 1)).any():
        raise InputError("probabilities must lie in [0, 1]; pass probabilities, not logits")
    return float(errors.mean()) if len(errors) else float("nan")


def _cumulative(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """False and true positive counts at infinity and at each distinct score, in falling order."""
    positive, values = _binary(labels, scores)
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


def _binary(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Array]:
    values = _scores(scores, 1)
    given = np.asarray(labels)
    if given.shape != values.shape:
        raise InputError(f"labels of shape {given.shape} do not fit scores of {values.shape}")
    if given.dtype != np.bool_ and not np.isin(given, (0, 1)).all():
        raise InputError("labels must be true or false (1 or 0), true for the positive class")
    return given.astype(np.bool_), values


def _multiclass(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], Array]:
    values = _scores(probabilities, 2)
    given = np.asarray(labels)
    if given.shape != values.shape[:1]:
        raise InputError(f"labels of shape {given.shape} do not fit scores of {values.shape}")
    fits = given.dtype.kind in "biu" or not given.size  # floats would be cut to class indices
    classes = given.astype(np.int64)
    if not fits or ((classes < 0) | (classes >= values.shape[1])).any():
        raise InputError(f"labels must be class indices from 0 to {values.shape[1] - 1}")
    return classes, values


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


def _counts(counts: npt.ArrayLike, length: int) -> npt.NDArray[Any]:
    weights = np.asarray(counts)
    if weights.ndim != 2 or (length and weights.shape[1] != length):
        raise InputError(f"counts of shape {weights.shape} do not fit {length} scores")
    return weights
