"""Statistics against twins and scipy, and by simulation: do intervals cover, is p uniform?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.paired_tests import (
    floor_note,
    holm,
    mean_std,
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


def test_floor_note():
    assert floor_note(1) == "1 seed: p cannot fall below 1"
    assert floor_note(4) == "4 seeds: p cannot fall below 0.125"
    assert floor_note(10) == "10 seeds: p cannot fall below 0.00195"


def test_mean_std():
    assert mean_std([2.0, 4.0]) == (3.0, pytest.approx(np.sqrt(2)))
    assert np.isnan(mean_std([])).all()
    assert np.isnan(mean_std([1.0]).std)


def test_paired_interval_covers_and_p_is_uniform():
    rng = np.random.default_rng(0)
    experiments, n, effect = 2_000, 8, 0.02
    base = rng.normal(0.7, 0.05, (experiments, n))
    noise = rng.normal(0, 0.03, (experiments, n))
    with_effect = [paired_difference(b + d + effect, b) for b, d in zip(base, noise, strict=True)]
    covered = np.mean([r.low <= effect <= r.high for r in with_effect])
    assert 0.93 <= covered <= 0.97
    p = np.array([paired_difference(b + d, b).p for b, d in zip(base, noise, strict=True)])
    # On a grid of 2^7 values p is uniform exactly: P(p <= k / 128) = k / 128.
    for level in (4, 8, 16, 32, 64, 96):
        share = np.mean(p <= level / 128)
        assert abs(share - level / 128) <= 3 * np.sqrt(0.25 / experiments)


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


def test_cautious_seeds_bound_the_spread_in_eighty_percent_of_studies():
    rng = np.random.default_rng(0)
    truly_needed = slow_fewest(0.02, 0.01)
    enough = [seeds_needed(rng.normal(0, 0.02, 4)) for _ in range(2_000)]
    share = np.mean([found.cautious >= truly_needed for found in enough if found])
    assert abs(share - 0.8) <= 3 * np.sqrt(0.16 / 2_000) + 0.01  # seeds are whole numbers
    assert np.mean([found.expected >= truly_needed for found in enough if found]) < 0.5


def test_seeds_needed_far_out_is_the_normal_number():
    found = seeds_needed([0.0, 1.0], half_width=1e-7)
    assert found is not None
    assert found.expected == pytest.approx((stats.norm.ppf(0.975) * 0.5**0.5 / 1e-7) ** 2, rel=1e-9)


def test_seeds_needed_at_the_edges():
    assert seeds_needed([0.02, 0.02, 0.02]) == (2, 2)
    for d in ([], [0.02], [0.02, np.nan], [0.02, np.inf]):
        assert seeds_needed(d) is None
    for d, half_width in (([[0.1, 0.2]], 0.01), ([0.1, 0.2], 0.0), ([0.1, 0.2], float("nan"))):
        with pytest.raises(InputError, match="half width"):
            seeds_needed(d, half_width)


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
