"""DeLong's test against its definition, and on degenerate input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.auc import auc
from preceptor.metrics.paired_tests import DelongResult, delong, unit_codes

LABELS = np.array([False] * 5 + [True] * 4)


def triples(least: int = 4):
    """Labels and two scores of few distinct values, so that ties are the rule."""
    image = st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 6))
    return st.lists(image, min_size=least, max_size=30).map(
        lambda images: tuple(np.array(column) for column in zip(*images, strict=True))
    )


def wins(x, y):
    return 1.0 if x > y else 0.5 if x == y else 0.0


def slow_components(labels, scores):
    """(M,) and (N,) structural components by the definition: a loop over all pairs."""
    up, down = scores[labels], scores[~labels]
    of_up = np.array([np.mean([wins(x, y) for y in down]) for x in up])
    of_down = np.array([np.mean([wins(x, y) for x in up]) for y in down])
    return of_up, of_down


def slow_variance(labels, a, b):
    """DeLong 1988: L S L' with the 2 × 2 covariances of the components of either class."""
    total = np.zeros((2, 2))
    for of_a, of_b in zip(slow_components(labels, a), slow_components(labels, b), strict=True):
        total += np.cov(of_a, of_b) / len(of_a)
    contrast = np.array([1.0, -1.0])
    return contrast @ total @ contrast


def slow_clustered(labels, a, b, groups):
    """Obuchowski 1997 for a difference, cluster by cluster, in her own symbols."""
    components = zip(slow_components(labels, a), slow_components(labels, b), strict=True)
    of_up, of_down = (one - other for one, other in components)
    area, m, n = of_up.mean(), labels.sum(), (~labels).sum()
    names = sorted(set(groups))
    held_up = sum(bool(labels[groups == g].any()) for g in names)
    held_down = sum(bool((~labels[groups == g]).any()) for g in names)
    s10 = s01 = s11 = 0.0
    for g in names:
        up = of_up[groups[labels] == g].sum() - (labels & (groups == g)).sum() * area
        down = of_down[groups[~labels] == g].sum() - (~labels & (groups == g)).sum() * area
        s10 += held_up / ((held_up - 1) * m) * up**2
        s01 += held_down / ((held_down - 1) * n) * down**2
        s11 += len(names) / (len(names) - 1) * up * down
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@given(triples())
def test_delong_is_the_definition(data):
    labels, a, b, _ = data
    assume(2 <= labels.sum() <= len(labels) - 2)
    result = delong(labels, a, b)
    variance = slow_variance(labels, a, b)
    assert result.auc_a == auc(labels, a)
    assert result.difference == result.auc_a - result.auc_b
    assert result.se**2 == pytest.approx(variance, abs=1e-12)
    if result.se > 1e-9:
        half = stats.norm.ppf(0.975) * result.se
        assert (result.low + half, result.high - half) == pytest.approx((result.difference,) * 2)
        assert result.p == pytest.approx(2 * stats.norm.cdf(-abs(result.difference) / result.se))


# Groups -----------------------------------------------------------------------------------


@given(triples())
def test_clustered_delong_is_obuchowskis_formula(data):
    labels, a, b, codes = data
    groups = codes.astype(str)
    assume(min(len(set(groups[labels])), len(set(groups[~labels]))) >= 2)
    found = delong(labels, a, b, groups)
    assert found.se**2 == pytest.approx(slow_clustered(labels, a, b, groups), abs=1e-12)
    assert found.units == len(set(groups))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["", None, np.nan, "a", "b"]), max_size=12))
def test_images_without_a_group_are_their_own(groups):
    codes = unit_codes(groups, len(groups))
    for i, one in enumerate(groups):
        for j, other in enumerate(groups):
            same = i == j or (one == other and one in ("a", "b"))
            assert (codes[i] == codes[j]) == same
    assert sorted(set(codes)) == list(range(len(set(codes))))
    with pytest.raises(InputError, match="groups for"):
        unit_codes([*groups, "a"], len(groups))


# Degenerate input -------------------------------------------------------------------------


def numbers(result: DelongResult) -> list[float]:
    return [result.difference, result.se, result.low, result.high, result.z, result.p]


@pytest.mark.parametrize("labels", [[], [False] * 4, [True] * 4])
def test_an_absent_class_is_nan_without_a_warning(labels):
    scores = np.linspace(0, 1, len(labels))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = delong(labels, scores, scores[::-1], ["g"] * len(labels))
        assert np.isnan([result.auc_a, result.auc_b, *numbers(result)]).all()


def test_equal_scores_do_not_differ():
    scores = np.random.default_rng(0).normal(size=9)
    for groups in (None, ["a", "b", "c"] * 3):
        for other in (scores, 2 * scores + 1):
            assert numbers(delong(LABELS, scores, other, groups)) == [0, 0, 0, 0, 0, 1]


def test_fewer_than_two_of_a_class_have_no_standard_error():
    scores = np.random.default_rng(1).normal(size=9)
    one = np.arange(9) == 4
    for labels, groups in ((one, None), (~one, None), (LABELS, ["a"] * 5 + list("bcde"))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = delong(labels, scores, scores[::-1], groups)
        assert result.difference == auc(labels, scores) - auc(labels, scores[::-1])
        assert np.isnan(numbers(result)[1:]).all()
    assert delong(LABELS, scores, scores[::-1], ["a"] * 5 + list("bcde")).units == 5


def test_what_does_not_fit_is_refused():
    scores = np.zeros(9)
    damaged = np.where(np.arange(9) == 3, np.nan, scores)
    for sides in ((damaged, scores), (scores, damaged)):
        with pytest.raises(InputError, match="1 of 9 scores are NaN, the first at position 3"):
            delong(LABELS, *sides)
    with pytest.raises(InputError, match="do not fit"):
        delong(LABELS, scores, scores[1:])
    with pytest.raises(InputError, match="labels must be true or false"):
        delong(np.arange(9), scores, scores)
    with pytest.raises(InputError, match="8 groups for 9 images"):
        delong(LABELS, scores, scores, ["a"] * 8)
