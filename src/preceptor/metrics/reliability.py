"""Reliability and calibration of probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.special import logsumexp

from preceptor.errors import InputError
from preceptor.metrics.auc import Array
from preceptor.metrics.paired_tests import LEVEL, unit_codes

BINS = 10
# Factors t of the ECE that are tried for its interval.
_FACTORS = np.union1d(np.linspace(0, 3, 121), np.linspace(0.9, 1.1, 81))
_BLOCK = 2**22  # counts drawn at once: 32 MiB for any number of images


class Bins(NamedTuple):
    """Images in bins of the score."""

    scores: Array  # (b,) mean score
    shares: Array  # (b,) share of hits
    counts: Array  # (b,) number of images


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error (ECE) with its interval."""

    value: float  # Σ_b n_b / n · |share of hits − mean score|
    low: float
    high: float
    expected: float  # of a calibrated model on as many images


def reliability_bins(hits: npt.ArrayLike, scores: npt.ArrayLike, bins: int = BINS) -> Bins:
    """Bins with about equal numbers of images; equal scores are in the same bin."""
    truth, values = _checked(hits, scores)
    places = _places(values, bins)
    counts = np.asarray(np.bincount(places), np.float64)
    used = counts > 0
    sums = [np.bincount(places, weights)[used] for weights in (values, truth)]
    return Bins(sums[0] / counts[used], sums[1] / counts[used], counts[used])


def calibration_error(
    hits: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    bins: int = BINS,
    resamples: int = 1000,
    seed: int = 0,
) -> CalibrationError:
    """ECE of (n,) scores over bins with equal numbers of images; interval by test inversion.

    The ECE is Σ_b |g_b|, where g_b is the sum of (hit − score) over the images of a bin, divided by
    n. A sum of absolute values is larger the noisier its terms are: the ECE of a sample is too
    large, that of a resample still more so, and percentile intervals do not cover. The interval
    has the values t · ECE, t ≥ 0, for which the ECE of the sample is between the tail quantiles of
    Σ_b |t g_b + (g_b* − g_b)|, where g_b* is the value on a resample of images or groups.

    M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI 2015.
    """
    truth, values = _checked(hits, scores)
    codes = unit_codes(groups, len(values))
    units, places = int(codes.max()) + 1, _places(values, bins)
    width = int(places.max()) + 1
    sums = np.bincount(codes * width + places, truth - values, units * width)
    by_unit = sums.reshape(units, width) / len(values)
    gaps = by_unit.sum(0)
    value = float(np.abs(gaps).sum())
    generator, even = np.random.default_rng(seed), np.full(units, 1 / units)
    block = max(1, _BLOCK // units)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    drawn = [generator.multinomial(units, even, size) @ by_unit for size in sizes]
    noise = np.concatenate(drawn) - gaps
    factors = np.union1d(_FACTORS, np.geomspace(3, max(3, 1 / max(value, 1e-3)), 61))  # error ≤ 1
    simulated = np.abs(factors[:, None, None] * gaps + noise).sum(2)
    tail = (1 - LEVEL) / 2
    lower, upper = np.quantile(simulated, [tail, 1 - tail], axis=1)
    inside = factors[(lower <= value) & (value <= upper)]
    low, high = (float(inside.min()), float(inside.max())) if len(inside) else (0.0, 1.0)
    if units < 2 or value == 0:  # nothing to resample, or no error that could be scaled
        return CalibrationError(value, math.nan, math.nan, float(simulated[0].mean()))
    return CalibrationError(value, low * value, high * value, float(simulated[0].mean()))


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


def fit_isotonic(hits: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    """Centered isotonic regression of hits on scores, by pooling of adjacent violators.

    The regression is linear between the centers of the pooled blocks, and constant beyond the first
    and the last center. Isotonic regression itself is constant on each block, and rises from a
    block to the next between two neighboring scores, however close they are.

    B. Zadrozny, C. Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability
    Estimates", KDD 2002. A. P. Oron, N. Flournoy, "Centered Isotonic Regression: Point and
    Interval Estimation for Dose-Response Studies", Statistics in Biopharmaceutical Research 9,
    2017.
    """
    truth, values = np.asarray(hits, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != values.shape or not len(truth):
        raise InputError(f"hits {truth.shape} and scores {values.shape} must be (n,), n ≥ 1")
    distinct, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    fit = isotonic_regression(np.bincount(index, truth) / counts, weights=counts)
    starts = fit.blocks[:-1]
    centers = np.add.reduceat(distinct * counts, starts) / np.add.reduceat(counts, starts)
    return centers, fit.x[starts]


def cross_entropy(hits: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean cross-entropy of the probability of the positive class; infinite for a sure error."""
    truth, values = np.asarray(hits, bool), np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(np.where(truth, values, 1 - values)).mean())
