"""Paired statistics over seeds and equivalence, against twins and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.paired_tests import (
    Excluded,
    excluded,
    holm,
    p_floor,
    paired_difference,
    seeds_needed,
)

differences = st.lists(st.integers(-4, 4).map(lambda v: v / 10), min_size=1, max_size=9)


def mean_over_axis(d, axis):
    return np.mean(d, axis=axis)


# Paired differences ------------------------------------------------------------------------


@given(differences)
def test_sign_flip_counts_every_pattern(d):
    signs = itertools.product([1, -1], repeat=len(d))
    sums = [abs(sum(round(10 * v) * s for v, s in zip(d, row, strict=True))) for row in signs]
    twin = np.mean([value >= sums[0] for value in sums])  # the first pattern is the observed one
    result = paired_difference(d, np.zeros(len(d)))
    assert result.p == twin
    assert result.p >= result.p_floor


@pytest.mark.parametrize("n", [2, 5, 12])
def test_paired_difference_matches_scipy(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.75, 0.03, n), rng.normal(0.72, 0.02, n)
    result = paired_difference(a, b)
    flips = stats.permutation_test((a - b,), mean_over_axis, permutation_type="samples")
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert result.p == pytest.approx(flips.pvalue)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert (result.mean, result.std) == pytest.approx((np.mean(a - b), np.std(a - b, ddof=1)))


def test_many_seeds_use_random_flips():
    rng = np.random.default_rng(0)
    d = rng.normal(0.3, 1, 25)
    exact_in_the_limit = 2 * stats.norm.sf(d.sum() / np.sqrt((d**2).sum()))
    result = paired_difference(d, np.zeros(25))
    assert result.p == pytest.approx(exact_in_the_limit, abs=0.01)
    assert result == paired_difference(d, np.zeros(25))
    assert paired_difference(np.ones(25), np.zeros(25)).p == p_floor(25) == 1 / 65537
    assert paired_difference(np.ones(20), np.zeros(20)).p == p_floor(20) == 2 / 2**20


def test_paired_difference_at_the_edges():
    one = paired_difference([0.7], [0.6])
    assert (one.p, one.p_floor, one.n) == (1, 1, 1)
    assert one.mean == pytest.approx(0.1)
    assert np.isnan([one.std, one.low, one.high]).all()
    same = paired_difference([0.7, 0.8, 0.9], [0.7, 0.8, 0.9])
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    for a in ([], [0.5, np.nan]):
        result = paired_difference(a, np.zeros(len(a)))
        assert np.isnan([result.mean, result.std, result.low, result.high, result.p]).all()
    with pytest.raises(InputError, match="one value per seed"):
        paired_difference([0.1, 0.2], [0.1])


# Seeds needed ------------------------------------------------------------------------------


def slow_fewest(std, half_width):
    for n in range(2, 100_000):
        if stats.t.ppf(0.975, n - 1) * std / np.sqrt(n) <= half_width:
            return n
    raise AssertionError("further than the twin counts")


@given(st.lists(st.integers(-40, 40).map(lambda v: v / 1000), min_size=2, max_size=12))
def test_seeds_needed_counts_up(d):
    k, std = len(d), np.std(d, ddof=1)
    found = seeds_needed(d)
    assert found is not None
    assert found.expected == slow_fewest(std, 0.01)
    # (k − 1) s² / σ² is χ² with k − 1, so that σ lies above the bound in 20 % of studies.
    assert found.cautious == slow_fewest(std * np.sqrt((k - 1) / stats.chi2.ppf(0.2, k - 1)), 0.01)
    assert 2 <= found.expected <= found.cautious


def test_seeds_needed_at_the_edges():
    assert seeds_needed([0.02, 0.02, 0.02]) == (2, 2)
    for d in ([], [0.02], [0.02, np.nan], [0.02, np.inf]):
        assert seeds_needed(d) is None


# Holm --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_as_the_step_down_procedure(p):
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[index] * (len(p) - step) > level:
                break
            rejected.add(index)
        assert set(np.flatnonzero(adjusted <= level)) == rejected


def test_holm_leaves_out_nan_and_refuses_nonsense():
    np.testing.assert_allclose(holm([0.04, np.nan, 0.01]), [0.04, np.nan, 0.02])
    with pytest.raises(InputError):
        holm([1.2])


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (-0.005, 0.005, Excluded.BOTH),
        (0.001, 0.009, Excluded.BOTH),  # above 0, but by less than is relevant
        (-0.01, 0.005, Excluded.GAIN),  # the margin itself is relevant
        (-0.2, -0.1, Excluded.GAIN),
        (-0.005, 0.01, Excluded.LOSS),
        (0.1, 0.2, Excluded.LOSS),
        (-0.01, 0.01, Excluded.NEITHER),
        (-0.2, 0.2, Excluded.NEITHER),
        (math.nan, math.nan, Excluded.NEITHER),
        (-math.inf, math.inf, Excluded.NEITHER),
    ],
)
def test_what_an_interval_excludes(low: float, high: float, found: Excluded) -> None:
    assert excluded(low, high) is found


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_relevant_difference_is_called_equivalent_in_a_fortieth_of_all_studies(
    seeds: int,
) -> None:
    """The true difference is the margin: each of the two one-sided tests has the level 2.5 %."""
    margin, studies = 0.01, 8_000
    drawn = np.random.default_rng(0).normal(margin, 0.002, (studies, seeds))
    half = stats.t.ppf(0.975, seeds - 1) * drawn.std(1, ddof=1) / math.sqrt(seeds)
    wrong = sum(
        excluded(low, high) in (Excluded.BOTH, Excluded.GAIN)
        for low, high in zip(drawn.mean(1) - half, drawn.mean(1) + half, strict=True)
    )
    assert 0.018 < wrong / studies < 0.032


def test_an_interval_over_images_has_to_exclude_the_same() -> None:
    assert excluded(-0.004, 0.006, (-0.009, 0.009)) is Excluded.BOTH
    assert excluded(-0.004, 0.006, (-0.02, 0.009)) is Excluded.GAIN
    assert excluded(-0.004, 0.006, (-0.02, 0.02)) is Excluded.NEITHER
    assert excluded(-0.02, 0.02, (-0.004, 0.006)) is Excluded.NEITHER
    assert excluded(math.nan, math.nan, (-0.004, 0.006)) is Excluded.NEITHER


def test_an_interval_without_width_excludes_nothing() -> None:
    assert excluded(0.0, 0.0) is Excluded.NEITHER
    assert excluded(0.0, 0.0, (0.0, 0.0)) is Excluded.NEITHER
    assert excluded(0.0, 0.0, (-0.002, 0.002)) is Excluded.BOTH
