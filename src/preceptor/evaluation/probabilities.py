"""Metrics of probabilities: accuracy and Brier score.

Metrics that are undefined on the data (no images, or one class only) are NaN; scores that are NaN
are invalid input and raise `InputError`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError
from preceptor.evaluation.arrays import Array
from preceptor.evaluation.checked_scores import binary_scores, class_scores, image_counts


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
    classes, values = class_scores(labels, probabilities)
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
    classes, values = class_scores(labels, probabilities)
    weights = image_counts(counts, len(values))
    right = weights @ (values.argmax(axis=1) == classes).astype(np.float64)
    total = weights.sum(axis=1, dtype=np.float64)
    share: Array = right / np.where(total > 0, total, np.nan)
    return share


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
        classes, values = class_scores(labels, probabilities)
        errors = ((values - np.eye(values.shape[1])[classes]) ** 2).sum(axis=1)
    else:
        positive, values = binary_scores(labels, probabilities)
        errors = (values - positive) ** 2
    if ((values < 0) | (values > 1)).any():
        raise InputError("probabilities must lie in [0, 1]; pass probabilities, not logits")
    return float(errors.mean()) if len(errors) else float("nan")
