"""Metrics against scikit-learn, against slow obvious twins, and on degenerate input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from preceptor.errors import InputError
from preceptor.metrics.auc import auc, auc_weighted, macro_auc, macro_auc_weighted
from preceptor.metrics.roc import average_precision, equal_error_rate, roc_curve
from preceptor.metrics.scores import accuracy, brier


def pairs(least: int = 1):
    """Labels and scores of few distinct values, so that ties are the rule."""
    image = st.tuples(st.booleans(), st.integers(0, 6).map(lambda v: v / 4 - 0.5))
    return st.lists(image, min_size=least, max_size=40).map(
        lambda images: tuple(np.array(column) for column in zip(*images, strict=True))
    )


def both_classes(data) -> bool:
    return 0 < data[0].sum() < len(data[0])


def slow_auc(labels, scores) -> float:
    wins = [
        1.0 if p > q else 0.5 if p == q else 0.0
        for p, a in zip(scores, labels, strict=True)
        if a
        for q, b in zip(scores, labels, strict=True)
        if not b
    ]
    return float(np.mean(wins)) if wins else float("nan")


@given(pairs())
def test_auc_counts_pairs(data):
    np.testing.assert_allclose(auc(*data), slow_auc(*data), rtol=1e-12)


@given(pairs(2).filter(both_classes))
def test_binary_metrics_match_scikit_learn(data):
    labels, scores = data
    assert auc(labels, scores) == pytest.approx(oracle.roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(
        oracle.average_precision_score(labels, scores)
    )
    chances = (scores + 0.5) / 1.5
    assert brier(labels, chances) == pytest.approx(oracle.brier_score_loss(labels, chances))


@given(pairs(2).filter(both_classes))
def test_roc_curve_matches_scikit_learn(data):
    curve = roc_curve(*data)
    fpr, tpr, thresholds = oracle.roc_curve(*data, drop_intermediate=False)
    # Every point of the full curve lies on ours, and each of ours is one of the full curve's.
    full = set(zip(fpr.round(12), tpr.round(12), thresholds, strict=True))
    assert set(zip(curve.fpr.round(12), curve.tpr.round(12), curve.thresholds, strict=True)) <= full
    assert oracle.auc(curve.fpr, curve.tpr) == pytest.approx(auc(*data))
    assert (curve.fpr[0], curve.tpr[0], curve.thresholds[0]) == (0, 0, np.inf)
    assert (curve.fpr[-1], curve.tpr[-1]) == (1, 1)
    for k in range(1, len(curve.fpr) - 1):  # no corner is collinear with its neighbours
        triangle = np.array([curve.fpr[k - 1 : k + 2], curve.tpr[k - 1 : k + 2], np.ones(3)])
        assert abs(np.linalg.det(triangle)) > 1e-9


@given(pairs(2).filter(both_classes))
def test_equal_error_rate_is_on_the_curve(data):
    labels, scores = data
    eer, threshold = equal_error_rate(labels, scores)
    fpr, tpr, _ = oracle.roc_curve(labels, scores, drop_intermediate=False)
    # Along the curve FPR − FNR rises strictly, so that interpolating on it is a second way.
    assert eer == pytest.approx(np.interp(0.0, fpr - (1 - tpr), fpr))
    gaps = np.abs(fpr - (1 - tpr))
    called = scores >= threshold
    gap = abs(called[~labels].mean() - (1 - called[labels].mean()))
    assert gap == pytest.approx(gaps.min())


def test_equal_error_threshold_lies_in_the_gap():
    labels = np.array([False] * 3 + [True] * 3)
    assert equal_error_rate(labels, [0, 0.1, 0.2, 0.6, 0.8, 1]) == (0.0, 0.4)
    assert equal_error_rate(labels, np.ones(6)) == (0.5, 1.0)
    assert equal_error_rate(labels, [1, 1, 1, 0, 0, 0]).eer == 1.0
    # FPR steps 0, 1/3 while FNR steps 2/3, 1/3: exactly equal at 1/3.
    assert equal_error_rate(labels, [0, 2, 4, 1, 3, 5]).eer == pytest.approx(1 / 3)
    smallest = np.nextafter(1.0, 2.0)
    assert equal_error_rate([False, True], [1.0, smallest]).threshold == smallest
    assert equal_error_rate([False, True], [-np.inf, 2.0]) == (0.0, 2.0)


@given(pairs(), st.integers(0, 2**32 - 1))
def test_weighted_auc_equals_auc_of_the_resample(data, seed):
    labels, scores = data
    counts = np.random.default_rng(seed).integers(0, 4, (5, len(labels)))
    twin = [auc(np.repeat(labels, row), np.repeat(scores, row)) for row in counts]
    np.testing.assert_allclose(auc_weighted(labels, scores, counts), twin, rtol=1e-12)


def test_weighted_auc_across_blocks():
    rng = np.random.default_rng(0)
    n = 3_000  # 43 rows fit a block
    labels, scores = rng.random(n) < 0.1, rng.normal(size=n).round(2)
    counts = rng.multinomial(n, np.full(n, 1 / n), 101)
    twin = [oracle.roc_auc_score(labels, scores, sample_weight=row) for row in counts]
    np.testing.assert_allclose(auc_weighted(labels, scores, counts), twin, rtol=1e-12)


@settings(max_examples=40)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_macro_metrics_match_scikit_learn(classes, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 20)])
    scores = rng.random((len(labels), classes)).round(1) + 0.05
    scores /= scores.sum(axis=1, keepdims=True)
    expected = (
        oracle.roc_auc_score(labels, scores[:, 1])
        if classes == 2
        else oracle.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    )
    assert macro_auc(labels, scores) == pytest.approx(expected)
    assert accuracy(labels, scores) == oracle.accuracy_score(labels, scores.argmax(axis=1))
    counts = rng.integers(0, 2, (6, len(labels)))
    counts[0] = labels == 0
    twin = [macro_auc(np.repeat(labels, r), np.repeat(scores, r, axis=0)) for r in counts]
    weighted = macro_auc_weighted(labels, scores, counts)
    np.testing.assert_allclose(weighted, twin, rtol=1e-12)
    assert np.isnan(weighted[0])


def test_macro_auc_is_over_the_classes_present():
    scores = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]])
    labels = np.array([0, 1, 1])
    twin = np.mean([slow_auc(labels == c, scores[:, c]) for c in (0, 1)])
    assert macro_auc(labels, scores) == pytest.approx(twin)


def test_multiclass_brier():
    scores = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]])
    twin = np.mean([0.3**2 + 0.2**2 + 0.1**2, 0.3**2 + 0.6**2 + 0.9**2])
    assert brier([0, 2], scores) == pytest.approx(twin)


@pytest.mark.parametrize("labels", [[], [False] * 3, [True] * 3])
def test_absent_classes_are_nan_without_a_warning(labels):
    scores = np.linspace(0.1, 0.9, len(labels))
    columns = np.stack([1 - scores, scores], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(auc(labels, scores))
        assert np.isnan(auc_weighted(labels, scores, np.ones((4, len(labels))))).all()
        assert np.isnan(equal_error_rate(labels, scores)).all()
        assert np.isnan(macro_auc(np.array(labels, dtype=int), columns))
        curve = roc_curve(labels, scores)
        assert np.isnan(curve.tpr).all() == (sum(labels) == 0)
        assert np.isnan(curve.fpr).all() == (sum(labels) == len(labels))
        precision = average_precision(labels, scores)
        assert np.isnan(precision) if not sum(labels) else precision == 1.0
        assert np.isnan(brier(labels, scores)) == (not labels)
        assert np.isnan(accuracy(np.array(labels, dtype=int), columns)) == (not labels)
        ones = np.ones((4, len(labels)))
        three = np.zeros((len(labels), 3))
        weighted = macro_auc_weighted(np.array(labels, dtype=int), three, ones)
        assert np.isnan(weighted).all()
        assert weighted.shape == (4,)


def test_constant_scores_are_chance():
    labels = np.array([True, False, True])
    assert auc(labels, np.zeros(3)) == 0.5
    assert average_precision(labels, np.zeros(3)) == pytest.approx(2 / 3)
    assert roc_curve(labels, np.zeros(3)).fpr.tolist() == [0, 1]


BINARY = [auc, roc_curve, equal_error_rate, average_precision]
MULTICLASS = [macro_auc, accuracy]


@pytest.mark.parametrize("metric", [*BINARY, brier])
def test_bad_binary_input_is_refused(metric):
    with pytest.raises(InputError, match="1 of 3 scores are NaN, the first at position 1"):
        metric([True, False, True], [0.1, np.nan, 0.2])
    with pytest.raises(InputError, match="do not fit"):
        metric([True, False], [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="labels must be true or false"):
        metric([1, 2, 0], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("metric", [*MULTICLASS, brier])
def test_bad_multiclass_input_is_refused(metric):
    with pytest.raises(InputError, match="1 of 2 scores are NaN"):
        metric([0, 1], [[0.1, 0.9], [np.nan, 0.1]])
    with pytest.raises(InputError, match="class indices from 0 to 1"):
        metric([0, 2], [[0.1, 0.9], [0.2, 0.8]])
    with pytest.raises(InputError, match="class indices"):
        metric([0.0, 0.5], [[0.1, 0.9], [0.2, 0.8]])


def test_logits_and_misfit_counts_are_refused():
    with pytest.raises(InputError, match="not logits"):
        brier([True, False], [3.0, -1.0])
    with pytest.raises(InputError, match="do not fit"):
        auc_weighted([True, False], [0.1, 0.2], [[1, 1, 1]])
    with pytest.raises(InputError, match="dimension"):
        auc([True], [[0.1]])
