"""Corrections for looks: against quadrature, and by simulation of studies that stop by width.

`benchmarks/sequential_seeds.py` is the long form of the simulations, with other corrections.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from preceptor.errors import InputError
from preceptor.evaluation.bootstrap import two_level_bootstrap
from preceptor.evaluation.paired_tests import LEVEL, p_floor, paired_difference
from preceptor.evaluation.sequential import (
    sequential_difference,
    sequential_floor,
    sequential_level,
    sequential_p,
)

Array = NDArray[np.float64]
LOOKS = (3, 5, 8, 12, 20)
WIDTHS = (0.75, 1.0, 1.25, 1.5, 2.0, 3.0)  # of the intervals at which one stops, in std of a seed
REPLICATES = 40_000


def normal(rng: np.random.Generator) -> Array:
    return rng.normal(size=(REPLICATES, LOOKS[-1]))


def heavy(rng: np.random.Generator) -> Array:
    """t with three degrees of freedom."""
    found: Array = rng.standard_t(3, (REPLICATES, LOOKS[-1])) / np.sqrt(3)
    return found


def skewed(rng: np.random.Generator) -> Array:
    """Gamma with shape 4, of skewness 1."""
    return (rng.gamma(4, size=(REPLICATES, LOOKS[-1])) - 4) / 2


def coverages(draws: Array, level: float) -> Array:
    """Coverage of the mean 0 at each of `WIDTHS`, of studies that stop by width."""
    mean = np.stack([draws[:, :n].mean(1) for n in LOOKS], 1)
    std = np.stack([draws[:, :n].std(1, ddof=1) for n in LOOKS], 1)
    numbers = np.array(LOOKS)
    half = stats.t.ppf(0.5 + level / 2, numbers - 1) * std / np.sqrt(numbers)
    hit = np.abs(mean) <= half
    found = []
    for width in WIDTHS:
        narrow = 2 * half <= width
        narrow[:, -1] = True  # the limit
        stop = narrow.argmax(1)
        found.append(hit[np.arange(len(hit)), stop].mean())
    return np.array(found)


def at_fixed_seeds(draws: Array) -> Array:
    """Coverage of the 95 % t interval at each number of seeds, without looks before."""
    found = []
    for n in LOOKS:
        own = draws[:, :n]
        half = stats.t.ppf(0.975, n - 1) * own.std(1, ddof=1) / np.sqrt(n)
        found.append((np.abs(own.mean(1)) <= half).mean())
    return np.array(found)


SLACK = 3 * np.sqrt(0.05 * 0.95 / REPLICATES)


# The level ---------------------------------------------------------------------------------


def slow_miss(first: int, last: int, alpha: float) -> float:
    """Miss of the least favorable rule over two looks: means over all pairs of quantiles."""
    middle = (np.arange(2000) + 0.5) / 2000

    def miss(n: int, q: Array) -> Array:
        found: Array = 2 * stats.norm.sf(stats.t.ppf(1 - alpha / 2, n - 1) * np.sqrt(q / (n - 1)))
        return found

    now = stats.chi2.ppf(middle, first - 1)
    later = now[:, None] + stats.chi2.ppf(middle, last - first)
    return float(np.maximum(miss(first, now), miss(last, later).mean(1)).mean())


@pytest.mark.parametrize("looks", [(2, 4), (3, 6)])
def test_the_level_is_that_of_the_least_favorable_rule(looks: tuple[int, int]) -> None:
    assert slow_miss(*looks, 1 - sequential_level(looks)) == pytest.approx(0.05, abs=3e-4)


def test_the_level_lies_between_no_correction_and_a_union_bound() -> None:
    assert sequential_level([7]) == sequential_level([]) == LEVEL
    before = LEVEL
    for count in range(2, 6):
        level = sequential_level(LOOKS[:count])
        assert before < level < 1 - (1 - LEVEL) / count
        before = level
    assert sequential_level(list(LOOKS)) == sequential_level(LOOKS)


@pytest.mark.parametrize("looks", [(1, 3), (3, 3), (5, 3)])
def test_looks_that_do_not_increase_are_refused(looks: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="increasing numbers of at least 2 seeds"):
        sequential_level(looks)


# Simulated studies -------------------------------------------------------------------------


def test_the_interval_at_the_stop_covers_and_an_uncorrected_one_does_not() -> None:
    draws = normal(np.random.default_rng(0))
    ours = coverages(draws, sequential_level(LOOKS))
    assert ours.min() >= 0.95 - SLACK, ours
    assert ours.min() <= 0.96, "a correction that is larger than it needs to be costs trainings"
    plain = coverages(draws, LEVEL)
    assert plain.min() < 0.92, plain


def test_heavy_tails_are_covered_and_skewed_ones_as_at_fixed_seeds() -> None:
    draws = heavy(np.random.default_rng(1))
    assert coverages(draws, sequential_level(LOOKS)).min() >= 0.95 - SLACK
    assert coverages(draws, LEVEL).min() < 0.935
    # The t interval itself covers too little if differences are skewed; looks add nothing to it.
    draws = skewed(np.random.default_rng(2))
    fixed = at_fixed_seeds(draws)
    assert 0.925 < fixed.min() < 0.94
    assert coverages(draws, sequential_level(LOOKS)).min() >= fixed.min() - SLACK
    assert coverages(draws, LEVEL).min() < 0.89


def test_each_of_several_intervals_covers_if_all_must_be_narrow() -> None:
    """Two baselines of one Student, whose differences are correlated and differ in spread."""
    rng = np.random.default_rng(3)
    shape, numbers = (REPLICATES, LOOKS[-1]), np.array(LOOKS)
    student = rng.normal(size=shape)
    sides = [student + spread * rng.normal(size=shape) for spread in (0.5, 1.0)]
    miss = []
    for level in (sequential_level(LOOKS), LEVEL):
        quantile = stats.t.ppf(0.5 + level / 2, numbers - 1) / np.sqrt(numbers)
        std = np.stack([[x[:, :n].std(1, ddof=1) for n in LOOKS] for x in sides])
        mean = np.stack([[x[:, :n].mean(1) for n in LOOKS] for x in sides])
        half = quantile[:, None] * std
        for width in (1.5, 2.0, 3.0):
            narrow = (2 * half <= width).all(0)
            narrow[-1] = True
            stop = narrow.argmax(0)
            at = (stop, np.arange(REPLICATES))
            miss.append([(np.abs(m[at]) > h[at]).mean() for m, h in zip(mean, half, strict=True)])
    corrected, plain = np.array(miss).reshape(2, -1)
    assert corrected.max() <= 0.05 + SLACK, corrected
    assert plain.max() > 0.065, plain


def test_p_is_valid_even_if_one_stops_at_the_smallest() -> None:
    looks, replicates = (5, 8, 11), 3000
    rng = np.random.default_rng(4)
    found = []
    for _ in range(replicates):  # without an effect
        d = rng.standard_t(3, looks[-1])
        found.append([paired_difference(d[:n], np.zeros(n)).p for n in looks])
    ours = np.array(
        [min(sequential_p(p, n, looks) for p, n in zip(row, looks, strict=True)) for row in found]
    )
    plain = np.array([min(row) for row in found])
    for level in (0.01, 0.05, 0.1, 0.25):
        slack = 3 * np.sqrt(level * (1 - level) / replicates)
        assert (ours <= level).mean() <= level + slack
    assert (plain <= 0.1).mean() > 0.13, "uncorrected, the best of three looks would pass"


# Sign-flip p-values ------------------------------------------------------------------------


@given(st.lists(st.integers(2, 16), min_size=1, max_size=5, unique=True), st.data())
def test_the_corrected_p_lies_between_p_and_the_union_bound(
    numbers: list[int], data: st.DataObject
) -> None:
    looks = sorted(numbers)
    n = data.draw(st.sampled_from(looks))
    steps = data.draw(st.integers(1, 2 ** (n - 1)))
    p = steps * p_floor(n)
    corrected = sequential_p(p, n, looks)
    assert p - 1e-12 <= corrected <= min(1.0, len(looks) * p) + 1e-12
    assert corrected >= sequential_floor(n, looks) - 1e-12
    if steps > 1:
        assert sequential_p(p - p_floor(n), n, looks) <= corrected


def test_p_at_the_edges() -> None:
    assert np.isnan(sequential_p(float("nan"), 3, [3, 5]))
    assert sequential_p(0.25, 3, []) == 0.25
    assert sequential_p(1.0, 3, [3, 5]) == 1.0
    assert sequential_p(0.0625, 5, [3, 5]) == 0.0625  # three seeds never give so small a p-value
    assert sequential_p(0.125, 4, [3, 5]) == 0.125 + 0.125  # 4 seeds of a study that goes on


# Paired differences ------------------------------------------------------------------------


def test_a_paired_difference_has_the_corrected_interval_and_p() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.8, 0.03, 8), rng.normal(0.7, 0.03, 8)
    plain, ours = paired_difference(a, b), sequential_difference(a, b, LOOKS)
    assert sequential_difference(a, b, ()) == plain
    assert (ours.mean, ours.std, ours.n) == (plain.mean, plain.std, plain.n)
    half = stats.t.ppf(0.5 + sequential_level(LOOKS) / 2, 7) * plain.std / np.sqrt(8)
    assert (ours.low, ours.high) == pytest.approx((plain.mean - half, plain.mean + half))
    assert ours.p == sequential_p(plain.p, 8, LOOKS)
    assert ours.p_floor == sequential_floor(8, LOOKS) == 3 * p_floor(8)


def test_a_bootstrap_interval_of_a_higher_level_is_wider() -> None:
    rng = np.random.default_rng(6)
    labels = np.arange(100) % 2 == 0
    b = rng.normal(size=(5, 100)) + labels
    results = [
        two_level_bootstrap(labels, b + 0.3 * labels, b, resamples=400, level=level)
        for level in (LEVEL, sequential_level(LOOKS))
    ]
    assert results[1].low < results[0].low < results[0].high < results[1].high
    alone = [
        two_level_bootstrap(labels, b, resamples=400, level=level)
        for level in (LEVEL, sequential_level(LOOKS))
    ]
    assert alone[1].low < alone[0].low < alone[0].high < alone[1].high
