"""Paired comparisons over a number of seeds that is not fixed in advance.

The seeds are run in looks, for example 3, 5, 8, 12 and at most 20 seeds, until the intervals of all
comparisons of interest are narrow enough. The number of seeds then depends on the data: one stops
where the standard deviation happens to be small, so that the 95 % t interval of the seeds at the
stop covers less than 95 %. The functions of this module correct interval and p-value for the looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from preceptor.errors import InputError
from preceptor.evaluation.auc import Array
from preceptor.evaluation.paired_tests import (
    LEVEL,
    PairedResult,
    p_floor,
    paired_difference,
    t_interval,
)

_STATES = 400  # grid of the sum of squares; the level changes by less than 1e-4 with more
_INCREMENTS = 400


def sequential_difference(a: npt.ArrayLike, b: npt.ArrayLike, looks: Sequence[int]) -> PairedResult:
    """Paired difference whose interval and p-value are corrected for the looks.

    Args:
        a: (n,) values of side a, one per seed.
        b: (n,) values of side b for the same seeds in the same order.
        looks: Numbers of seeds after which the study may stop, increasing; () = n is fixed, and
            the result is that of `paired_difference`.

    Returns:
        The result, with the interval at `sequential_level` and with p and its floor from
        `sequential_p`.

    Raises:
        InputError: As in `paired_difference`, or the looks are invalid.

    Example:
        >>> a, b = [0.74, 0.75, 0.76], [0.71, 0.73, 0.72]
        >>> fixed, r = paired_difference(a, b), sequential_difference(a, b, [3, 5, 8])
        >>> fixed.mean == r.mean, r.low < fixed.low, r.p
        (True, True, 0.75)
    """
    fixed = paired_difference(a, b)
    if not looks:
        return fixed
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    low, high = t_interval(d, sequential_level(looks))
    p = sequential_p(fixed.p, fixed.n, looks)
    return replace(fixed, low=low, high=high, p=p, p_floor=sequential_floor(fixed.n, looks))


def sequential_level(looks: Sequence[int]) -> float:
    """Level of the t interval at each look that covers 95 % for any stopping rule by widths.

    At look k with n_k seeds, let Q_k = Σ (d_i − mean)² / σ², which has n_k − 1 degrees of freedom.
    For normal differences the mean is independent of Q_1, …, Q_k, and Q_{k+1} − Q_k is an
    independent χ² with n_{k+1} − n_k degrees of freedom. Given Q_k = q, the interval of level 1 − a
    at look k misses the true mean with probability

        g_k(q) = 2 Φ(−t(1 − a / 2, n_k − 1) √(q / (n_k − 1)))

    The least favorable rule that stops by Q_1, …, Q_k alone misses with probability E[V_1(Q_1)],

        V_K = g_K,   V_k(q) = max(g_k(q), E[V_{k+1}(q + χ²)])

    The level 1 − a is that at which this is 5 %. It holds for every rule that depends on standard
    deviations only, hence also if several comparisons must be narrow before a study stops: with
    jointly normal differences, their means are independent of all of their variances. It does not
    hold for a rule that stops when a difference is significant. It assumes normal differences, as
    the t interval does.

    Args:
        looks: Numbers of seeds after which the study may stop, increasing, each at least 2.

    Returns:
        The level; 0.95 for a single look, and for () = a fixed number of seeds.

    Raises:
        InputError: The looks are not increasing, or a look has fewer than 2 seeds.

    Reference:
        Stein, "A two-sample test for a linear hypothesis whose power is independent of the
        variance", 1945 (mean and variances are independent); Chow, Robbins and Siegmund, "Great
        expectations: the theory of optimal stopping", 1971 (backward induction).

    Example:
        >>> round(sequential_level([3, 5, 8, 12, 20]), 3), sequential_level([8])
        (0.978, 0.95)
    """
    return _level(_checked(looks)) if looks else LEVEL


def sequential_p(p: float, n: int, looks: Sequence[int]) -> float:
    """Sign-flip p-value that is valid for any rule of stopping at one of the looks.

    The probability that any look has a p-value of at most p is at most the sum over all looks. The
    p-values of a look with n_k seeds are multiples of its `p_floor` f_k, so that the sum is

        Σ_k f_k ⌊p / f_k⌋ ≤ (number of looks) · p

    Looks that are too early for such a p-value add nothing. The bound needs no assumption beyond
    that of the sign-flip test.

    Args:
        p: p-value of the sign-flip test over n seeds.
        n: Number of seeds at the stop; counted as a look if it is none, as in a study that has not
            finished.
        looks: Numbers of seeds after which the study may stop; () = n is fixed.

    Returns:
        The corrected p-value, at most 1; NaN for NaN.

    Reference:
        Tarone, "A modified Bonferroni method for discrete data", Biometrics 1990.

    Example:
        >>> sequential_p(2 / 2**8, 8, [3, 5, 8, 12, 20])  # the floors of 3 and 5 seeds are above
        0.0234375
    """
    if math.isnan(p) or not looks:
        return p
    floors = [p_floor(one) for one in {*_checked(looks), n}]
    # A p-value that is a multiple of the floor must not fall below it by rounding.
    return min(1.0, sum(floor * math.floor(p / floor + 1e-9) for floor in floors))


def sequential_floor(n: int, looks: Sequence[int]) -> float:
    """Smallest attainable p-value of `sequential_p`; that of `p_floor` without looks."""
    return sequential_p(p_floor(n), n, looks)


def _checked(looks: Sequence[int]) -> tuple[int, ...]:
    found = tuple(int(look) for look in looks)
    if not found or found[0] < 2 or any(a >= b for a, b in pairwise(found)):
        raise InputError(f"looks must be increasing numbers of at least 2 seeds: {list(looks)}")
    return found


@lru_cache(maxsize=64)
def _level(looks: tuple[int, ...]) -> float:
    if len(looks) == 1:
        return LEVEL
    miss = 1 - LEVEL
    # Between a union bound over the looks and no correction; both ends have the right sign.
    found = optimize.brentq(
        lambda log: _least_favorable(looks, math.exp(log)) - miss,
        math.log(miss / len(looks) / 2),
        math.log(miss),
        xtol=1e-4,
    )
    return 1.0 - math.exp(found)


def _least_favorable(looks: tuple[int, ...], alpha: float) -> float:
    """Largest probability of a miss over all rules that stop by standard deviations, for t
    intervals of level 1 − alpha at each look."""
    most = float(stats.chi2.isf(1e-9, looks[-1] - 1))
    states: Array = np.geomspace(1e-9, most, _STATES)
    middle = (np.arange(_INCREMENTS) + 0.5) / _INCREMENTS

    def misses(n: int) -> Array:
        quantile = special.stdtrit(n - 1, 1 - alpha / 2)
        return np.asarray(2 * special.ndtr(-quantile * np.sqrt(states / (n - 1))), np.float64)

    value: Array = misses(looks[-1])
    for now, then in zip(looks[-2::-1], looks[:0:-1], strict=True):
        added = stats.chi2.ppf(middle, then - now)
        later: Array = np.interp(states[:, None] + added, states, value).mean(axis=1)
        value = np.maximum(misses(now), later)
    middle = (np.arange(20 * _INCREMENTS) + 0.5) / (20 * _INCREMENTS)
    first = stats.chi2.ppf(middle, looks[0] - 1)
    return float(np.interp(first, states, value).mean())
