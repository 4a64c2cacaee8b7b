"""Paired statistics over seeds: t intervals, sign-flip tests, Holm's correction, sample sizes.

Results of a study vary over trainings (seeds) and over test images. The functions of this module
cover the variation over seeds, conditional on the test images; `bootstrap.two_level_bootstrap`
covers both. All comparisons are paired: entry s of both sides belongs to the same seed, and thus to
the same annotated images if these are drawn separately for each seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.auc import Array

LEVEL = 0.95
"""Of every interval."""
EXACT_UP_TO = 20
"""Largest number of seeds with all sign patterns: 2^20 are 8 MiB and a few milliseconds."""
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
    """Mean and standard deviation (n − 1); NaN without values, the deviation also for one value.

    Args:
        values: (n,) numbers.
    """
    given = np.asarray(values, dtype=np.float64)
    mean = float(given.mean()) if given.size else float("nan")
    return MeanStd(mean, float(given.std(ddof=1)) if given.size > 1 else float("nan"))


def t_interval(values: npt.ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """t interval of a mean: mean ± t((1 + level) / 2, n − 1) · std / √n; NaN below two values.

    The interval is not clipped to the range of the values: for few AUCs near 1 it may exceed 1.

    Args:
        values: (n,) numbers, assumed to be normal.
        level: Coverage, in (0, 1).
    """
    given = np.asarray(values, dtype=np.float64)
    mean, std = mean_std(given)
    n = len(given)
    if n < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * std / np.sqrt(n)
    return float(mean - half), float(mean + half)


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike) -> PairedResult:
    """Paired difference over seeds: mean of d = a − b, 95 % t interval, exact sign-flip p-value.

    The interval is mean ± t(0.975, n − 1) · std / √n. The p-value is two-sided: the share of all
    2^n sign patterns ±d whose |sum| is at least the observed one. The test assumes only that the
    two sides of a seed are exchangeable under the null hypothesis. The p-value cannot fall below
    `p_floor` = 2 / 2^n. For more than 20 seeds, 2^16 random patterns with a fixed seed are used,
    p is (1 + hits) / (1 + 2^16), and `p_floor` is 1 / (1 + 2^16).

    Args:
        a: (n,) values of side a, one per seed.
        b: (n,) values of side b for the same seeds in the same order.

    Returns:
        The result. Interval and std are NaN for n = 1. All values are NaN for n = 0 and if a value
        is NaN (the AUC of a set with one class): seeds are never dropped silently.

    Raises:
        InputError: The two sides do not have one value per seed each.

    Reference:
        Fisher, "The Design of Experiments", 1935, section 21; Phipson and Smyth, "Permutation
        p-values should never be zero", 2010 (the +1).

    Example:
        >>> r = paired_difference([0.74, 0.75, 0.76], [0.71, 0.73, 0.72])
        >>> f"{r.mean:.2f} [{r.low:.3f}, {r.high:.3f}], p = {r.p}"
        '0.03 [0.005, 0.055], p = 0.25'
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
    """Smallest attainable p-value of `paired_difference`.

    Args:
        n: Number of seeds.
    """
    return min(1.0, 2.0 / 2**n) if n <= EXACT_UP_TO else 1.0 / (1 + _RANDOM_FLIPS)


def floor_note(n: int, floor: float | None = None) -> str:
    """Note on the smallest attainable p-value, as in "3 seeds: p cannot fall below 0.25".

    Args:
        n: Number of seeds.
        floor: Smallest attainable p-value; None = that of a fixed number of seeds.
    """
    least = p_floor(n) if floor is None else floor
    return f"{n} seed{'' if n == 1 else 's'}: p cannot fall below {least:.3g}"


def seeds_needed(differences: npt.ArrayLike, half_width: float = 0.01) -> SeedsNeeded | None:
    """Number of seeds for a given half width of the 95 % t interval of a paired difference.

    The smallest n ≥ 2 with t(0.975, n − 1) · s / √n ≤ half_width. For `expected`, s is the
    standard deviation of the given differences, which is uncertain for few seeds. For `cautious`,
    s is its upper 80 % confidence bound s √((k − 1) / χ²(0.2, k − 1)), which is 2.1 s at k = 3
    seeds and 1.3 s at 10.

    Args:
        differences: (k,) paired differences a − b, one per seed.
        half_width: Half width of the interval, > 0, in the unit of the differences.

    Returns:
        Both numbers, including the k given seeds; 2 and 2 if all differences are equal; None if
        the standard deviation is unknown: fewer than two seeds, or a difference that is NaN or
        infinite.

    Raises:
        InputError: A half width ≤ 0, or differences of more than one dimension.

    Example:
        >>> seeds_needed([0.02, 0.03, 0.05], half_width=0.01)
        SeedsNeeded(expected=12, cautious=43)
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not 0 < half_width < np.inf:
        raise InputError(
            f"differences of shape (seeds,) and a half width > 0 are needed: {d.shape}, "
            f"{half_width}"
        )
    k = len(d)
    if k < 2 or not np.isfinite(d).all():
        return None
    std = mean_std(d).std
    bound = std * float(np.sqrt((k - 1) / stats.chi2.ppf(0.2, k - 1)))
    return SeedsNeeded(_fewest(std / half_width), _fewest(bound / half_width))


def _fewest(ratio: float) -> int:
    """Smallest n ≥ 2 with t(0.975, n − 1) · ratio / √n ≤ 1; the left side decreases with n."""

    def wide(n: int) -> bool:
        return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * ratio > float(np.sqrt(float(n)))

    if not wide(2):
        return 2
    low, high = 2, 4  # too few, enough
    while wide(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle) else (low, middle)
    return high


def holm(p_values: npt.ArrayLike) -> Array:
    """Holm's step-down adjustment: p_(i) → max over j ≤ i of min(1, (m − j + 1) p_(j)).

    Rejecting hypotheses with adjusted values of at most 0.05 keeps the family-wise error rate below
    5 % under any dependence.

    Args:
        p_values: (m,) p-values; NaN (not computable) stays NaN and is not counted in m.

    Returns:
        (m,) adjusted p-values in the given order.

    Raises:
        InputError: A value lies outside [0, 1].

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2)
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise InputError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")  # NaN last
    m = int((~np.isnan(p)).sum())
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

    BOTH = "both"
    """Gains and losses: the sides are equivalent."""
    GAIN = "gain"
    """Gains alone: the first side is not superior."""
    LOSS = "loss"
    """Losses alone: the first side is not inferior."""
    NEITHER = "neither"
    """Neither: the interval is too wide."""


UNDEFINED = (math.nan, math.nan)
"""Interval that is not known."""


def excluded(
    low: float, high: float, margin: float, images: tuple[float, float] = UNDEFINED
) -> Excluded:
    """Equivalence test of a difference by its confidence intervals.

    With 95 % intervals each of the two one-sided tests has the level 2.5 %. An interval without a
    width, as of two models with an AUC of 1 with every seed, is undefined.

    Args:
        low, high: Ends of the interval over seeds; NaN if it is undefined, which excludes nothing.
        margin: Smallest relevant difference, above 0.
        images: Interval over seeds and images, which has to exclude the same; NaN if there is none.

    Raises:
        InputError: The margin is not above 0, or low is above high.

    Example:
        >>> excluded(-0.004, 0.006, margin=0.01).value
        'both'
        >>> excluded(-0.02, 0.006, margin=0.01).value
        'gain'
        >>> excluded(-0.004, 0.006, margin=0.01, images=(-0.03, 0.008)).value
        'gain'
    """
    if not margin > 0:
        raise InputError(f"The margin of an equivalence test must be above 0, not {margin}.")
    if low > high:
        raise InputError(f"The lower end of an interval, {low}, is above the upper end, {high}.")
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
