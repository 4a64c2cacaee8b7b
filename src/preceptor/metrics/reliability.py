"""Reliability and calibration of probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from preceptor.errors import InputError
from preceptor.metrics.auc import Array

BINS = 10
_SIMULATED = 100


def calibration_error(
    hits: npt.ArrayLike, scores: npt.ArrayLike, bins: int = BINS
) -> tuple[float, float]:
    """Expected calibration error (ECE), and that of a calibrated model on as many images.

    The ECE is Σ_b n_b / n · |share of hits − mean score| over bins with equal numbers of images. It
    is above 0 for a calibrated model, too, by the noise of the shares: its mean over simulated hits
    with the scores as probabilities.

    M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI 2015.
    """
    truth, values = _checked(hits, scores)
    places, generator = _places(values, bins), np.random.default_rng(0)

    def error(shown: Array) -> float:
        return float(np.abs(np.bincount(places, shown - values)).sum() / len(values))

    drawn = (generator.random(len(values)) < values for _ in range(_SIMULATED))
    return error(truth), float(np.mean([error(np.asarray(one, np.float64)) for one in drawn]))


def _checked(hits: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    truth, values = np.asarray(hits, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != values.shape or not len(truth):
        raise InputError(f"hits {truth.shape} and scores {values.shape} must be (n,), n ≥ 1")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError("a score is not a probability in [0, 1]")
    return truth, values


def _places(values: Array, bins: int) -> npt.NDArray[np.int64]:
    """Bin of each image: by the rank of its score, equal scores together."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return np.asarray((middle * bins / len(values)).astype(np.int64)[index])


TEMPERATURES = (0.05, 1000.0)
"""Range of temperatures; a fit at its end is no calibration."""

_HALVINGS = 60
# A slope that is rounding: where all images are right, it vanishes before the end of the range.
_FLAT = 1e-12


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """Temperature T with the smallest cross-entropy of softmax(logits / T).

    The cross-entropy is convex in 1/T, so that its derivative has one zero, which is found by
    halving in log T.

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017.
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


def cross_entropy(hits: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean cross-entropy of the probability of the positive class; infinite for a sure error."""
    truth, values = np.asarray(hits, bool), np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(np.where(truth, values, 1 - values)).mean())
