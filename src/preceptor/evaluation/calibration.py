"""Calibration of scores on labelled images: temperature scaling, centered isotonic regression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from preceptor.errors import InputError
from preceptor.evaluation.arrays import Array

TEMPERATURES = (0.05, 20.0)
"""Range of temperatures; a fit at its end is no calibration."""

_HALVINGS = 60
# A slope that is rounding: where all images are right, it vanishes before the end of the range.
_FLAT = 1e-12


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """Temperature T with the smallest cross-entropy of softmax(logits / T).

    The cross-entropy is convex in 1/T, so that its derivative has one zero, which is found by
    halving in log T.

    Args:
        labels: (n,) class indices.
        logits: (n, C) logits, up to a constant per image: logarithms of probabilities.

    Returns:
        Temperature in `TEMPERATURES`; above 1 if the model is overconfident.

    Raises:
        InputError: There are no images, or the shapes do not match.

    Reference:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks",
        ICML 2017.

    Example:
        >>> logits = np.log([[0.9, 0.1]] * 10)  # 0.9 for what is right in 7 of 10 images
        >>> round(fit_temperature([0] * 7 + [1] * 3, logits), 3)
        2.593
    """
    classes, values = np.asarray(labels, np.int64), np.asarray(logits, np.float64)
    if values.ndim != 2 or classes.shape != values.shape[:1] or not len(classes):
        raise InputError(
            f"labels {classes.shape} and logits {values.shape} must be (n,) and (n, C), n ≥ 1"
        )
    own = values[np.arange(len(values)), classes]

    def slope(temperature: float) -> float:
        """Derivative of the cross-entropy with respect to 1/T."""
        scaled = values / temperature
        shares = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
        return float(((shares * values).sum(1) - own).mean())

    low, high = np.log(TEMPERATURES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(middle))) < _FLAT else (middle, high)
    return float(np.exp((low + high) / 2))


def fit_isotonic(hits: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    """Centered isotonic regression of hits on scores, by pooling of adjacent violators.

    The regression is linear between the centers of the pooled blocks, and constant beyond the first
    and the last center. Isotonic regression itself is constant on each block, and rises from a
    block to the next between two neighboring scores, however close they are.

    Args:
        hits: (n,) bool, true for the positive class.
        scores: (n,) scores, such as log-odds.

    Returns:
        Mean score (m,) and share of hits (m,) of each pooled block, both strictly increasing.

    Raises:
        InputError: There are no images, or the shapes do not match.

    Reference:
        B. Zadrozny, C. Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability
        Estimates", KDD 2002. A. P. Oron, N. Flournoy, "Centered Isotonic Regression: Point and
        Interval Estimation for Dose-Response Studies", Statistics in Biopharmaceutical Research 9,
        2017.

    Example:
        >>> fit_isotonic([False, True, False, True], [-2.0, -1.0, 0.0, 3.0])
        (array([-2. , -0.5,  3. ]), array([0. , 0.5, 1. ]))
    """
    truth, values = np.asarray(hits, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != values.shape or not len(truth):
        raise InputError(f"hits {truth.shape} and scores {values.shape} must be (n,), n ≥ 1")
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.bincount(place, truth) / counts
    blocks: list[tuple[float, float, int]] = []  # mean score, share of hits, number of images
    for center, mean, count in zip(distinct.tolist(), means.tolist(), counts.tolist(), strict=True):
        while blocks and blocks[-1][1] >= mean:
            center_before, before, images = blocks.pop()
            center = (center_before * images + center * count) / (images + count)
            mean = (before * images + mean * count) / (images + count)
            count += images
        blocks.append((center, mean, count))
    return np.array([one[0] for one in blocks]), np.array([one[1] for one in blocks])


def cross_entropy(hits: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean cross-entropy of the probability of the positive class; infinite for a sure error.

    Example:
        >>> round(cross_entropy([True, False], [0.8, 0.2]), 4)
        0.2231
    """
    truth, values = np.asarray(hits, bool), np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(np.where(truth, values, 1 - values)).mean())
