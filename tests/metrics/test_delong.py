"""DeLong's test against MLstatkit, its own definition, the jackknife, and on degenerate input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from MLstatkit import Delong_test
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.auc import auc, auc_weighted
from preceptor.metrics.delong import AucInterval, DelongResult, auc_interval, delong, unit_codes

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
    return contrast @ total @ contrast, total


def slow_clustered(labels, scores, groups):
    """Obuchowski 1997 for one AUC, cluster by cluster, in her own symbols."""
    of_up, of_down = slow_components(labels, scores)
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


def scores_of(rng, images=300, groups=None, spread=0.8):
    """Labels and two correlated scores; with groups, images of one group are alike."""
    labels = rng.random(images) < 0.4
    shared = rng.normal(size=images)
    if groups is not None:
        shared = shared + spread * rng.normal(size=groups.max() + 1)[groups]
    return labels, labels + shared, 0.8 * labels + shared + 0.6 * rng.normal(size=images)


# Images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [8, 1, 0])  # no ties, some, almost nothing else
@pytest.mark.parametrize("images", [40, 1000])
def test_delong_matches_mlstatkit(images, decimals):
    rng = np.random.default_rng(images + decimals)
    labels, a, b = scores_of(rng, images)
    a, b = a.round(decimals), b.round(decimals)
    # MLstatkit takes B − A.
    z, p, own_b, own_a, auc_b, auc_a, info = Delong_test(labels, b, a)
    result = delong(labels, a, b)
    assert info["method"] == "delong"
    assert (result.z, result.p) == (pytest.approx(z), pytest.approx(p))
    assert (result.auc_a, result.auc_b) == (pytest.approx(auc_a), pytest.approx(auc_b))
    assert result.se == pytest.approx(np.sqrt(info["var_diff"]))
    for own, normal in ((result.interval_a, own_a), (result.interval_b, own_b)):
        half = stats.norm.ppf(0.975) * own.se  # its interval is the normal one, cut off
        assert np.clip([own.auc - half, own.auc + half], 0, 1) == pytest.approx(normal)
    assert result.units == images


@given(triples())
def test_delong_is_the_definition(data):
    labels, a, b, _ = data
    assume(2 <= labels.sum() <= len(labels) - 2)
    result = delong(labels, a, b)
    variance, whole = slow_variance(labels, a, b)
    assert result.auc_a == auc(labels, a)
    assert result.difference == result.auc_a - result.auc_b
    assert result.se**2 == pytest.approx(variance, abs=1e-12)
    assert result.interval_a.se**2 == pytest.approx(whole[0, 0], abs=1e-12)
    assert result.interval_b.se**2 == pytest.approx(whole[1, 1], abs=1e-12)
    assert result.interval_a == pytest.approx(auc_interval(labels, a), nan_ok=True)
    if result.se > 1e-9:
        half = stats.norm.ppf(0.975) * result.se
        assert (result.low + half, result.high - half) == pytest.approx((result.difference,) * 2)
        assert result.p == pytest.approx(2 * stats.norm.cdf(-abs(result.difference) / result.se))
    assert 0 <= result.interval_a.low <= result.auc_a or np.isnan(result.interval_a.low)


@given(triples())
def test_delong_is_antisymmetric_and_of_ranks_alone(data):
    labels, a, b, groups = data
    groups = groups.astype(str)
    one, other = delong(labels, a, b, groups), delong(labels, b, a, groups)
    both = [[one.difference, one.se, one.low, one.high, one.z, one.p]]
    both += [[-other.difference, other.se, -other.high, -other.low, -other.z, other.p]]
    np.testing.assert_allclose(*both, atol=1e-12)
    curved = delong(labels, np.exp(a), b * 3.0 - 7, groups)
    assert repr(curved) == repr(one)  # NaN and all


def test_one_aucs_interval_is_t_times_se_on_the_logit_scale():
    rng = np.random.default_rng(7)
    labels, a, b = scores_of(rng, 60)
    found = delong(labels, a, b).interval_b
    k = np.array([labels.sum(), (~labels).sum()])
    degrees = (1 / k).sum() ** 2 / (1 / (k**2 * (k - 1))).sum()
    half = stats.t.ppf(0.975, degrees) * found.se / (found.auc * (1 - found.auc))
    centre = np.log(found.auc / (1 - found.auc))
    expected = 1 / (1 + np.exp(-np.array([centre - half, centre + half])))
    np.testing.assert_allclose(found[2:], expected)


# Groups -----------------------------------------------------------------------------------


@given(triples())
def test_clustered_delong_is_obuchowskis_formula(data):
    labels, a, b, codes = data
    groups = codes.astype(str)
    assume(min(len(set(groups[labels])), len(set(groups[~labels]))) >= 2)
    found = delong(labels, a, b, groups)
    assert found.interval_a.se**2 == pytest.approx(slow_clustered(labels, a, groups), abs=1e-12)
    assert found.interval_b.se**2 == pytest.approx(slow_clustered(labels, b, groups), abs=1e-12)
    assert found.units == len(set(groups))
    # Var(a − b) + Var(a + b) = 2 Var(a) + 2 Var(b), where a + b is to have −b's components.
    mirrored = delong(labels, a, -b, groups)
    total = found.interval_a.se**2 + found.interval_b.se**2
    assert found.se**2 + mirrored.se**2 == pytest.approx(2 * total, abs=1e-12)


@given(triples())
def test_groups_of_one_image_are_plain_delong(data):
    # Without a small-sample factor: Obuchowski's G / (G − 1) is DeLong's n − 1 then.
    labels, a, b, _ = data
    plain = delong(labels, a, b)
    for groups in ([f"g{k}" for k in range(len(labels))], [""] * len(labels), [None] * len(labels)):
        assert repr(delong(labels, a, b, groups)) == repr(plain)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_within_a_group_add_nothing(copies):
    labels, a, b = scores_of(np.random.default_rng(2), 300)
    groups = np.arange(300)
    plain = delong(labels, a, b)
    many = [np.repeat(x, copies) for x in (labels, a, b, groups)]
    clustered, taken_as_new = delong(*many), delong(*many[:3])
    assert clustered.difference == pytest.approx(plain.difference)
    assert clustered.se == pytest.approx(plain.se)
    assert clustered.interval_a.se == pytest.approx(plain.interval_a.se)
    assert clustered.units == 300
    assert taken_as_new.se == pytest.approx(plain.se / np.sqrt(copies), rel=0.01)


@pytest.mark.parametrize("one_class", [True, False])
def test_clustered_se_is_the_jackknifes_and_the_bootstraps(one_class):
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(80), 5)
    labels, a, b = scores_of(rng, 400, groups)
    if one_class:
        labels = groups % 2 == 0
        a, b = a + labels, b + labels
    found = delong(labels, a, b, groups)

    def differ(pick):
        return auc(labels[pick], a[pick]) - auc(labels[pick], b[pick])

    left_out = np.array([differ(groups != g) for g in range(80)])
    jackknife = np.sqrt(79 / 80 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.se == pytest.approx(jackknife, rel=0.03)
    drawn = rng.integers(0, 80, (4000, 80))
    counts = np.apply_along_axis(np.bincount, 1, drawn, minlength=80)[:, groups]
    spread = auc_weighted(labels, a, counts) - auc_weighted(labels, b, counts)
    assert found.se == pytest.approx(spread.std(), rel=0.06)
    own = auc_weighted(labels, a, counts).std()
    assert found.interval_a.se == pytest.approx(own, rel=0.06)
    plain = delong(labels, a, b).interval_a.se
    assert (found.interval_a.se > 1.3 * plain) == one_class  # both classes alike: pairs cancel


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
        assert np.isnan(result.interval_a).all()
        assert np.isnan(auc_interval(labels, scores)).all()


def test_equal_scores_do_not_differ():
    scores = np.random.default_rng(0).normal(size=9)
    for groups in (None, ["a", "b", "c"] * 3):
        for other in (scores, 2 * scores + 1):
            assert numbers(delong(LABELS, scores, other, groups)) == [0, 0, 0, 0, 0, 1]


def test_a_standard_error_of_zero_tells_nothing():
    perfect, constant = LABELS * 2.0, np.ones(9)
    result = delong(LABELS, perfect, constant)
    assert (result.auc_a, result.auc_b, result.difference, result.se) == (1, 0.5, 0.5, 0)
    assert np.isnan([result.low, result.high, result.z, result.p]).all()
    assert result.interval_a[:2] == (1, 0)
    assert np.isnan(result.interval_a[2:]).all()


def test_fewer_than_two_of_a_class_have_no_standard_error():
    scores = np.random.default_rng(1).normal(size=9)
    one = np.arange(9) == 4
    for labels, groups in ((one, None), (~one, None), (LABELS, ["a"] * 5 + list("bcde"))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = delong(labels, scores, scores[::-1], groups)
        assert result.difference == auc(labels, scores) - auc(labels, scores[::-1])
        assert np.isnan(numbers(result)[1:]).all()
        assert result.interval_a[0] == auc(labels, scores)
        assert np.isnan(result.interval_a[1:]).all()
    assert delong(LABELS, scores, scores[::-1], ["a"] * 5 + list("bcde")).units == 5


def test_intervals_of_an_auc_stay_within_its_range():
    scores = np.array([0, 1, 2, 3, 5, 4, 6, 7, 8.0])
    for sign in (1, -1):
        found = auc_interval(LABELS, sign * scores)
        assert isinstance(found, AucInterval)
        assert 0 < found.low < found.auc < found.high < 1
        assert not 1.96 * found.se < found.auc < 1 - 1.96 * found.se  # AUC ± 1.96 se would leave it
        assert 0 < found.se < 0.1
    infinite = auc_interval(LABELS, np.where(scores == 8, np.inf, scores))
    assert infinite == auc_interval(LABELS, scores)


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
