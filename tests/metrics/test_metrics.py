"""Metrics and operating points: scikit-learn, every threshold, degenerate input."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from preceptor.errors import InputError
from preceptor.metrics.auc import (
    auc,
    auc_weighted,
    average_precision,
    equal_error_rate,
    macro_auc,
    macro_auc_weighted,
    roc_curve,
)
from preceptor.metrics.operating_points import (
    APCERS,
    FDRS,
    TOO_SMALL,
    fixed_threshold,
    roc_rates,
    threshold_rates,
)
from preceptor.metrics.scores import accuracy, brier, deployed_scores, fixed_thresholds


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
    fpr, tpr, _ = oracle.roc_curve(*data, drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(*data), (fpr, tpr), atol=1e-12)


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
        fpr, tpr = roc_curve(labels, scores)
        assert np.isnan(tpr).all() == (sum(labels) == 0)
        assert np.isnan(fpr).all() == (sum(labels) == len(labels))
        assert np.isnan(average_precision(labels, scores))
        assert np.isnan(brier(labels, scores)) == (not labels)
        assert np.isnan(accuracy(np.array(labels, dtype=int), columns)) == (not labels)
        ones = np.ones((4, len(labels)))
        three = np.zeros((len(labels), 3))
        weighted = macro_auc_weighted(np.array(labels, dtype=int), three, ones)
        assert np.isnan(weighted).all()
        assert weighted.shape == (4,)


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


def images(least: int = 2, most: int = 60):
    """Labels, scores of few distinct values (ties) and sources."""
    image = st.tuples(st.booleans(), st.integers(0, 12).map(lambda v: v / 4), st.sampled_from("ab"))
    return st.lists(image, min_size=least, max_size=most).map(
        lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True))
    )


def many(seed: int, negatives: int, positives: dict[str, int], decimals: int = 2):
    """Labels, scores and sources with as many images as asked for."""
    rng = np.random.default_rng(seed)
    sources = [""] * negatives + [name for name, count in positives.items() for _ in range(count)]
    labels = np.arange(len(sources)) >= negatives
    mix = rng.permutation(len(labels))
    scores = (rng.normal(size=len(labels)) + 1.5 * labels).round(decimals)
    return labels[mix], scores[mix], np.array(sources)[mix]


def every_threshold(scores):
    """One in each gap between scores, on each score, and beyond both ends."""
    distinct = np.unique(scores)
    return np.concatenate(
        [[distinct[0] - 1], distinct, (distinct[1:] + distinct[:-1]) / 2, [distinct[-1] + 1]]
    )


def fpr(labels, scores, threshold):
    return np.mean(scores[~labels] >= threshold)


def by(rates, measure, at=math.nan, source=""):
    found = [
        rate
        for rate in rates
        if rate.measure == measure
        and (rate.at == at or math.isnan(at))
        and (rate.source == source or measure == "worst_apcer")
    ]
    assert len(found) == 1
    return found[0]


# Rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    ["", "fdr=", "fdr=0", "fdr5", "fdr=100%", "fdr=-0.1", "fdr=0.1.2", "fdr=nan", "tdr=.1"],
)
def test_malformed_rules_are_refused(rule):
    with pytest.raises(InputError, match="write eer, or one such as fdr5%"):
        fixed_threshold(rule, [False, True], [0.0, 1.0])


# The threshold that validation fixes ------------------------------------------------------


@given(images(), st.sampled_from([0.01, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9, 0.999]))
def test_fdr_threshold_is_the_lowest_that_keeps_the_rate(data, rate):
    labels, scores, _ = data
    threshold = fixed_threshold(f"fdr={rate}", labels, scores)
    negatives = int((~labels).sum())
    if labels.all() or not labels.any() or round(rate * negatives, 9) < 1:
        assert threshold is None
        return
    assert threshold is not None
    assert fpr(labels, scores, threshold) <= rate + 1e-9
    lower = [t for t in np.unique(scores) if t < threshold]
    assert lower  # the threshold is never so low that it calls everything positive
    assert fpr(labels, scores, max(lower)) > rate
    higher = scores[scores > max(lower)]
    if len(higher):  # in the middle of the gap
        assert threshold == pytest.approx((max(lower) + higher.min()) / 2)


# Points of the test scores themselves -----------------------------------------------------


@given(images(least=1, most=90))
def test_points_by_trying_every_threshold(data):
    labels, scores, sources = data
    rates = roc_rates(labels, scores, sources)
    assert [rate.measure for rate in rates] == ["eer"] + ["tdr"] * len(FDRS) + ["bpcer"] * 2
    negatives = int((~labels).sum())
    parts = {name: scores[labels & (sources == name)] for name in sorted(set(sources[labels]))}
    tries = every_threshold(scores)
    for rate in FDRS:
        found = by(rates, "tdr", rate)
        assert found.note.startswith(TOO_SMALL) == (0 < negatives < round(1 / rate))
        if negatives >= 1 / rate and labels.any():
            best = max(
                np.mean(scores[labels] >= t) for t in tries if fpr(labels, scores, t) <= rate + 1e-9
            )
            assert found.value == pytest.approx(best)
        else:
            assert math.isnan(found.value)
    for rate in APCERS:
        found = by(rates, "bpcer", rate)
        small = any(len(part) < round(1 / rate) for part in parts.values())
        assert found.note.startswith(TOO_SMALL) == small
        if parts and not small and negatives:
            worst = [max(np.mean(part < t) for part in parts.values()) for t in tries]
            kept = [t for t, apcer in zip(tries, worst, strict=True) if apcer <= rate + 1e-9]
            best = min(fpr(labels, scores, t) for t in kept)
            assert found.value == pytest.approx(best)
        else:
            assert math.isnan(found.value)


@pytest.mark.parametrize("labels", [[], [False] * 30, [True] * 30])
def test_absent_classes_have_no_rates_and_no_warning(labels):
    scores, sources = np.linspace(0, 1, len(labels)), ["a"] * len(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(math.isnan(rate.value) for rate in roc_rates(labels, scores, sources))
        found = threshold_rates(labels, scores, sources, 0.5)
    assert math.isnan(by(found, "acer").value)
    assert math.isnan(by(found, "worst_apcer").value) == (not any(labels))
    assert math.isnan(by(found, "bpcer").value) == (not labels or all(labels))


# Errors at a fixed threshold --------------------------------------------------------------


@given(images(), st.integers(-1, 14).map(lambda v: v / 4 - 0.125))
def test_rates_at_a_threshold_are_counted(data, threshold):
    labels, scores, sources = data
    found = threshold_rates(labels, scores, sources, threshold)
    names = sorted(set(sources[labels]))
    assert [(rate.measure, rate.source) for rate in found[:-3]] == [("apcer", n) for n in names]
    assert [rate.measure for rate in found[-3:]] == ["worst_apcer", "bpcer", "acer"]
    called = scores >= threshold
    misses = {name: np.mean(~called[labels & (sources == name)]) for name in names}
    for name in names:
        assert by(found, "apcer", source=name).value == misses[name]
    worst = by(found, "worst_apcer")
    if names:
        assert worst.value == max(misses.values())
        assert misses[worst.source] == worst.value
    if (~labels).any():
        assert by(found, "bpcer").value == np.mean(called[~labels])
    if names and (~labels).any():
        confusion = oracle.confusion_matrix(labels, called, labels=[False, True])
        assert by(found, "bpcer").value == confusion[0, 1] / confusion[0].sum()
        assert by(found, "acer").value == (worst.value + by(found, "bpcer").value) / 2
        if len(names) == 1:
            assert worst.value == confusion[1, 0] / confusion[1].sum()


def test_what_does_not_fit_is_refused():
    labels, scores, sources = [False, True], [0.1, 0.9], ["", "a"]
    with pytest.raises(InputError, match="threshold is NaN"):
        threshold_rates(labels, scores, sources, math.nan)
    for function in (roc_rates, lambda *given: threshold_rates(*given, 0.5)):
        with pytest.raises(InputError, match="sources of shape"):
            function(labels, scores, ["a"])
        with pytest.raises(InputError, match="NaN"):
            function(labels, [math.nan, 0.9], sources)
        with pytest.raises(InputError, match="do not fit"):
            function(labels, [0.9], sources)


# Score tables and terms -------------------------------------------------------------------


def test_fixed_thresholds_take_the_validation_rows_of_all_validation_sets():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(120) % 2 == 0)
    frame = pd.DataFrame(
        {
            "split": np.repeat(["val", "val-unseen", "test", "train"], 30),
            "label": np.where(labels, "fake", "real"),
            "score_fake": np.clip(rng.normal(0.4, 0.2, 120) + 0.2 * labels, 0, 1),
        }
    )
    found = fixed_thresholds(frame, "fake")
    own = frame[:60]
    truth, scores = (own["label"] == "fake").to_numpy(), deployed_scores(own, "fake")
    assert found == {
        rule: fixed_threshold(rule, truth, scores) for rule in ("eer", "fdr=0.05")
    }  # 30 negatives fix 5 %, neither 1 nor 0.1 %
    assert found != fixed_thresholds(frame[30:60], "fake")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert fixed_thresholds(frame, "fake", ["fdr=0.2"]).keys() == {"fdr=0.2"}
    assert fixed_thresholds(frame, None) == {}
    assert fixed_thresholds(frame[60:], "fake") == {}
    assert fixed_thresholds(own[own["label"] == "fake"], "fake") == {}
