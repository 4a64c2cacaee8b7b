"""Paired tests and intervals: over seeds (t, sign flip, Holm), and over test images (DeLong).

Results of a study vary over trainings (seeds) and over test images. The functions over seeds are
conditional on the test images, DeLong's test on the two models; `bootstrap.bootstrap_difference`
covers both variations. All comparisons are paired: entry s of both sides belongs to the same seed,
and to the same annotated images if these are drawn for each seed.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from preceptor.errors import InputError
from preceptor.metrics.auc import Array, auc

LEVEL = 0.95  # of every interval
EXACT_UP_TO = 20  # seeds with all sign patterns: 2^20 are 8 MiB and a few milliseconds
_RANDOM_FLIPS = 2**16


class MeanStd(NamedTuple):
    """Mean and standard deviation (n − 1)."""

    mean: float
    std: float


@dataclass(frozen=True)
class PairedResult:
    """Paired differences a − b over seeds, see `paired_difference`."""

    mean: float
    std: float
    low: float
    high: float
    p: float
    p_floor: float
    n: int


class SeedsNeeded(NamedTuple):
    """Numbers of seeds by the observed std and by its upper bound, see `seeds_needed`."""

    expected: int
    cautious: int


def mean_std(values: npt.ArrayLike) -> MeanStd:
    """Mean and standard deviation (n − 1); NaN without values, the deviation also for one value."""
    given = np.asarray(values, dtype=np.float64)
    mean = float(given.mean()) if given.size else float("nan")
    return MeanStd(mean, float(given.std(ddof=1)) if given.size > 1 else float("nan"))


def t_interval(values: npt.ArrayLike) -> tuple[float, float]:
    """t interval of a mean: mean ± t(0.975, n − 1) · std / √n; NaN below two values.

    The interval is not clipped to the range of the values: for few AUCs near 1 it may exceed 1.
    """
    given = np.asarray(values, dtype=np.float64)
    mean, std = mean_std(given)
    n = len(given)
    if n < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * std / np.sqrt(n)
    return float(mean - half), float(mean + half)


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike) -> PairedResult:
    """Paired difference over seeds: mean of d = a − b, 95 % t interval, exact sign-flip p-value.

    The interval is mean ± t(0.975, n − 1) · std / √n. The p-value is two-sided: the share of all
    2^n sign patterns ±d whose |sum| is at least the observed one. The test assumes only that the
    two sides of a seed are exchangeable under the null hypothesis. The p-value cannot fall below
    `p_floor` = 2 / 2^n. For more than 20 seeds, 2^16 random patterns with a fixed seed are used,
    p is (1 + hits) / (1 + 2^16), and `p_floor` is 1 / (1 + 2^16).

    Fisher, "The Design of Experiments", 1935, section 21; Phipson and Smyth, "Permutation
    p-values should never be zero", 2010 (the +1).
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"both sides need one value per seed, in equal number: {first.shape}, {second.shape}"
        )
    d = first - second
    n, nan = len(d), float("nan")
    floor = p_floor(n)
    if not n or np.isnan(d).any():
        return PairedResult(nan, nan, nan, nan, nan, floor, n)
    mean, std = mean_std(d)
    p = _sign_flip(d)
    return PairedResult(mean, std, *t_interval(d), p, floor, n)


def p_floor(n: int) -> float:
    """Smallest attainable p-value of `paired_difference`."""
    return min(1.0, 2.0 / 2**n) if n <= EXACT_UP_TO else 1.0 / (1 + _RANDOM_FLIPS)


_HALF_WIDTH = 0.01


def seeds_needed(differences: npt.ArrayLike) -> SeedsNeeded | None:
    """Number of seeds for a half width of 0.01 of the 95 % t interval of a paired difference.

    The smallest n ≥ 2 with t(0.975, n − 1) · s / √n ≤ 0.01. For `expected`, s is the
    standard deviation of the given differences, which is uncertain for few seeds. For `cautious`,
    s is its upper 80 % confidence bound s √((k − 1) / χ²(0.2, k − 1)), which is 2.1 s at k = 3
    seeds and 1.3 s at 10.
    """
    d = np.asarray(differences, dtype=np.float64)
    k = len(d)
    if k < 2 or not np.isfinite(d).all():
        return None
    std = mean_std(d).std
    bound = std * float(np.sqrt((k - 1) / stats.chi2.ppf(0.2, k - 1)))
    return SeedsNeeded(_fewest(std / _HALF_WIDTH), _fewest(bound / _HALF_WIDTH))


def _fewest(ratio: float) -> int:
    """Smallest n ≥ 2 with t(0.975, n − 1) · ratio / √n ≤ 1; the left side decreases with n."""

    def enough(n: int) -> bool:
        return bool(special.stdtrit(n - 1, 0.5 + LEVEL / 2) * ratio <= n**0.5)

    return 2 + bisect_left(range(2, 2**40), True, key=enough)


def holm(p_values: npt.ArrayLike, size: int = 0) -> Array:
    """Holm's step-down adjustment: p_(i) → max over j ≤ i of min(1, (m − j + 1) p_(j)).

    Rejecting hypotheses with adjusted values of at most 0.05 keeps the family-wise error rate below
    5 % under any dependence. m is the number of p-values that are not NaN, or `size` if larger.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise InputError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")  # NaN last
    m = max(size, int((~np.isnan(p)).sum()))
    factors = np.maximum(m - np.arange(len(p)), 0)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def _sign_flip(d: Array) -> float:
    """Two-sided sign-flip p-value of Σ d."""
    least = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # equal sums must not differ by rounding
    if len(d) <= EXACT_UP_TO:
        sums = d[:1]  # a pattern and its negation give the same |sum|
        for value in d[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= least))
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(16):  # in blocks, to limit memory
        signs = rng.integers(0, 2, (_RANDOM_FLIPS // 16, len(d)), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ d) >= least).sum())
    return (1 + hits) / (1 + _RANDOM_FLIPS)


RELEVANT_DIFFERENCE = 0.01
"""Default of the smallest relevant difference in AUC."""


class Excluded(Enum):
    """Differences of at least the margin that an interval excludes."""

    BOTH = "both"  # gains and losses: the sides are equivalent
    GAIN = "gain"  # gains alone: the first side is not superior
    LOSS = "loss"  # losses alone: the first side is not inferior
    NEITHER = "neither"  # the interval is too wide


UNDEFINED = (math.nan, math.nan)  # an interval that is not known


def excluded(low: float, high: float, images: tuple[float, float] = UNDEFINED) -> Excluded:
    """Equivalence test of a difference within ±`RELEVANT_DIFFERENCE` by its confidence intervals.

    With 95 % intervals each of the two one-sided tests has the level 2.5 %. An interval without a
    width, as of two models with an AUC of 1 with every seed, is undefined.
    """
    margin = RELEVANT_DIFFERENCE
    if not (math.isfinite(low) and math.isfinite(high)):
        return Excluded.NEITHER
    if math.isfinite(images[0]) and math.isfinite(images[1]):
        low, high = min(low, images[0]), max(high, images[1])
    if low == high:
        return Excluded.NEITHER
    if -margin < low and high < margin:
        return Excluded.BOTH
    if high < margin:
        return Excluded.GAIN
    return Excluded.LOSS if low > -margin else Excluded.NEITHER


def unit_codes(groups: npt.ArrayLike | None, images: int) -> npt.NDArray[np.int64]:
    """Codes of independent units: groups in order of appearance, then images without a group."""
    if groups is None:
        return np.arange(images)
    names = np.asarray(groups, dtype=object)
    if names.shape != (images,):
        raise InputError(f"{len(names)} groups for {images} images; give one group per image")
    alone = pd.isna(names)
    alone[~alone] = names[~alone] == ""
    codes = np.empty(images, dtype=np.int64)
    codes[~alone] = pd.factorize(names[~alone])[0]
    codes[alone] = codes[~alone].max(initial=-1) + 1 + np.arange(alone.sum())
    return codes


_NORMAL = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class DelongResult:
    """Two AUCs on the same images and their difference a − b, see `delong`.

    `units` is the number of independent units: groups, or images without groups.
    """

    auc_a: float
    auc_b: float
    difference: float
    se: float
    low: float
    high: float
    z: float
    p: float
    units: int


def delong(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
) -> DelongResult:
    """DeLong's test of two correlated AUCs: difference, 95 % interval and two-sided p; O(n log n).

    Let there be M positives x and N negatives y. Each image has a component: V(x) is the share of
    negatives with a lower score than x, V(y) the share of positives with a higher score than y,
    ties counted one half. The mean of either component is the AUC A. With
    a_g = Σ (V(x) − A) / M over the positives of group g and b_g = Σ (V(y) − A) / N over its
    negatives,

        se² = G⁺ / (G⁺ − 1) Σ a_g² + G⁻ / (G⁻ − 1) Σ b_g² + 2 G / (G − 1) Σ a_g b_g

    where G counts the groups, G⁺ those with a positive and G⁻ those with a negative. Where every
    image is its own group the last sum is 0, and this is DeLong's variance without a further
    factor. The difference's se takes the components' differences. z = difference / se is set
    against the normal distribution, which needs some tens of groups of each class.

    DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
    receiver operating characteristic curves", Biometrics 1988;
    Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997.
    """
    auc_a, auc_b = auc(labels, scores_a), auc(labels, scores_b)
    positive = np.asarray(labels).astype(np.bool_)
    units = unit_codes(groups, len(positive))
    deviations = _deviations(positive, scores_a) - _deviations(positive, scores_b)
    se, difference = _standard_error(deviations, positive, units), auc_a - auc_b
    low = high = z = 0.0 if difference == 0 and se == 0 else math.nan
    if se > 0:
        z, half = difference / se, _NORMAL * se
        low, high = difference - half, difference + half
    p = float(2 * stats.norm.sf(abs(z)))
    return DelongResult(auc_a, auc_b, difference, se, low, high, z, p, len(np.unique(units)))


def _deviations(positive: npt.NDArray[np.bool_], scores: npt.ArrayLike) -> Array:
    """(n,) 2 M N (V − A) of each image, as integers, so that equal components cancel exactly."""
    values = np.asarray(scores, dtype=np.float64)
    up, down = values[positive], values[~positive]
    won, lost = _beaten(up, down), _beaten(down, up)
    deviations = np.empty(len(values))
    deviations[positive] = len(up) * won
    deviations[~positive] = len(down) * (2.0 * len(up) - lost)
    deviations -= won.sum()
    return deviations


def _beaten(own: Array, others: Array) -> Array:
    """Twice the number of other scores below each own score, ties counted one half."""
    order, ranked = np.argsort(own), np.sort(others)
    rising = own[order]  # in sorted order, successive look-ups share cache lines
    beaten = np.empty(len(own))
    beaten[order] = np.searchsorted(ranked, rising, "left")
    beaten[order] += np.searchsorted(ranked, rising, "right")
    return beaten


def _standard_error(
    deviations: Array, positive: npt.NDArray[np.bool_], units: npt.NDArray[np.int64]
) -> float:
    """Obuchowski's standard error of the AUC; NaN for fewer than two groups of a class."""
    count, sums, factors = int(units.max(initial=-1)) + 1, [], []
    for own in (positive, ~positive):
        groups = len(np.unique(units[own]))
        if groups < 2:
            return math.nan
        sums.append(np.bincount(units[own], deviations[own], count) / own.sum())
        factors.append(groups / (groups - 1))
    a, b = sums
    both = 2 * count / (count - 1) * (a @ b)
    variance = factors[0] * (a @ a) + factors[1] * (b @ b) + both
    pairs = 2.0 * positive.sum() * (~positive).sum()
    return math.sqrt(max(0.0, float(variance))) / float(pairs)  # below 0 by rounding only
