"""Operating points against scikit-learn and against trying every threshold, and at the edges."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from preceptor.errors import InputError
from preceptor.metrics.operating_points import (
    APCERS,
    FDRS,
    RULES,
    TERMS,
    TOO_SMALL,
    Rate,
    Terms,
    fixed_threshold,
    roc_rates,
    rule_rate,
    threshold_rates,
)
from preceptor.metrics.scores import deployed_scores, fixed_thresholds


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


def test_rules():
    assert rule_rate("eer") is None
    assert [rule_rate(rule) for rule in RULES] == [None, *FDRS]
    assert rule_rate("fdr=.5") == 0.5
    assert rule_rate("fdr=1e-3") == 0.001
    assert rule_rate("fdr=2E-3".lower()) == 0.002


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "EER",
        "fdr",
        "fdr=",
        "fdr=0",
        "fdr=1",
        "fdr=1.5",
        "fdr=-0.1",
        "fdr=x",
        "fdr=0.1.2",
        "fdr = 0.1",
        "fdr=0.1 ",
        "fdr=0.1\n",
        "fdr=nan",
        "fdr=inf",
        "fdr=1e-400",
        "tdr=0.1",
    ],
)
def test_malformed_rules_are_refused(rule):
    with pytest.raises(InputError, match="write eer, or fdr=x with x between 0 and 1"):
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


@given(images())
def test_eer_threshold_is_that_of_the_equal_error_rate(data):
    labels, scores, _ = data
    assume(0 < labels.sum() < len(labels))
    threshold = fixed_threshold("eer", labels, scores)
    assert threshold is not None
    gaps = [
        abs(fpr(labels, scores, t) - np.mean(scores[labels] < t)) for t in every_threshold(scores)
    ]
    own = abs(fpr(labels, scores, threshold) - np.mean(scores[labels] < threshold))
    assert own == pytest.approx(min(gaps))


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.tuples(st.booleans(), finite), min_size=2, max_size=20),
    st.sampled_from(["eer", "fdr=0.1", "fdr=0.5", "fdr=0.99999999999"]),
)
@example([(True, 1.0), (False, np.nextafter(1.0, 2.0))] * 3, "fdr=0.5")  # no room in the gap
@example([(True, 1e-320), (False, 0.0)] * 3, "fdr=0.5")
@example([(True, 1.7976931348623157e308), (False, -1.7976931348623157e308)] * 2, "fdr=0.5")
def test_thresholds_of_any_scores_come_back_from_json(rows, rule):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    threshold = fixed_threshold(rule, labels, scores)
    assert json.loads(json.dumps(threshold, allow_nan=False)) == threshold
    rate = rule_rate(rule)
    if threshold is not None and rate is not None:
        assert fpr(labels, scores, threshold) <= rate
    if threshold is None and 0 < labels.sum() < len(labels) and rate is not None:
        # None is given for a fine rate, or where the largest float is a negative too many.
        assert rate * (~labels).sum() < 1 or scores[~labels].max() == np.finfo(float).max


def test_infinite_scores_have_a_finite_threshold_or_none():
    labels, inf = [False, False, True, True], math.inf
    for scores in ([-inf, 0.0, inf, inf], [-inf, -inf, 0.0, inf], [-inf, -inf, inf, inf]):
        threshold = fixed_threshold("fdr=0.5", labels, scores)
        assert threshold is not None
        assert math.isfinite(threshold)
        assert np.mean(np.array(scores[:2]) >= threshold) <= 0.5
    assert fixed_threshold("fdr=0.5", labels, [inf, inf, 0.0, inf]) is None
    assert fixed_threshold("eer", labels, [0.0, 0.0, inf, inf]) in (None, 0.0)


def test_constant_scores_and_absent_classes():
    labels = np.array([False] * 20 + [True] * 5)
    constant = np.full(25, 0.5)
    assert fixed_threshold("eer", labels, constant) == 0.5
    threshold = fixed_threshold("fdr=0.05", labels, constant)
    assert threshold == np.nextafter(0.5, 1)  # nothing is called positive
    for one in (np.ones(25, bool), np.zeros(25, bool)):
        assert [fixed_threshold(rule, one, constant) for rule in RULES] == [None] * 4
    assert fixed_threshold("eer", [], []) is None


def test_a_threshold_takes_at_least_one_negative():
    for negatives, known in ((19, False), (20, True), (21, True)):
        labels = np.arange(negatives + 3) >= negatives
        scores = np.arange(negatives + 3, dtype=float)
        threshold = fixed_threshold("fdr=0.05", labels, scores)
        assert (threshold is not None) == known
        if threshold is not None:
            assert fpr(labels, scores, threshold) == 1 / negatives


def test_scores_that_do_not_fit_are_refused():
    for rule in RULES:
        with pytest.raises(InputError, match="NaN"):
            fixed_threshold(rule, [False, True], [math.nan, 1.0])
        with pytest.raises(InputError, match="do not fit"):
            fixed_threshold(rule, [False, True], [1.0])


# Points of the test scores themselves -----------------------------------------------------


@pytest.mark.parametrize("decimals", [6, 1])
@pytest.mark.parametrize("seed", range(4))
def test_tdr_is_the_highest_of_scikit_learns_curve(seed, decimals):
    labels, scores, sources = many(seed, 1_000 + 37 * seed, {"a": 150, "b": 110}, decimals)
    rates = roc_rates(labels, scores, sources)
    false, true, _ = oracle.roc_curve(labels, scores, drop_intermediate=False)
    for rate in FDRS:
        assert by(rates, "tdr", rate).value == pytest.approx(true[false <= rate + 1e-12].max())
    gaps = false - (1 - true)
    assert rates[0].measure == "eer"
    assert rates[0].value == pytest.approx(np.interp(0.0, gaps, false))


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize("seed", range(4))
def test_bpcer_is_the_lowest_that_every_source_allows(seed, decimals):
    labels, scores, sources = many(seed, 60, {"a": 100, "b": 130, "c": 217}, decimals)
    scores = scores + (sources == "c") * (seed - 1)  # another source is the worst each time
    rates = roc_rates(labels, scores, sources)
    for rate in APCERS:
        allowed = []
        for threshold in every_threshold(scores):
            worst = max(np.mean(scores[labels & (sources == name)] < threshold) for name in "abc")
            if worst <= rate + 1e-12:
                allowed.append(fpr(labels, scores, threshold))
        assert by(rates, "bpcer", rate).value == pytest.approx(min(allowed))


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


@pytest.mark.parametrize(("count", "known"), [(19, False), (20, True), (21, True)])
def test_points_finer_than_the_set_have_no_value(count, known):
    # 5 % of the negatives for TDR, of the smallest source for BPCER.
    rates = roc_rates(*many(0, count, {"a": 200}))
    found = by(rates, "tdr", 0.05)
    assert math.isnan(found.value) != known
    assert found.note == ("" if known else f"n too small: {count} negatives, 20 needed")
    assert by(rates, "tdr", 0.001).note == f"n too small: {count} negatives, 1000 needed"
    rates = roc_rates(*many(0, 30, {"a": 200, "b": count}))
    found = by(rates, "bpcer", 0.05)
    assert math.isnan(found.value) != known
    assert found.note == ("" if known else f"n too small: {count} of b, 20 needed")
    assert by(rates, "bpcer", 0.01).note == f"n too small: {count} of b, 100 needed"
    assert not by(roc_rates(*many(0, 30, {"a": 100})), "bpcer", 0.01).note
    rates = roc_rates(*many(0, 30, {"": count}))
    assert by(rates, "bpcer", 0.05).note == (
        "" if known else "n too small: 19 positives, 20 needed"
    )


def test_twenty_images_may_miss_one_and_not_two():
    scores = np.arange(40.0)
    labels, sources = np.arange(40) >= 20, ["a"] * 40
    mixed = scores.copy()
    mixed[[20, 21]] = 0.5, 10.5  # two positives among the negatives
    rates = roc_rates(labels, mixed, sources)
    assert by(rates, "tdr", 0.05).value == 18 / 20  # above 18, one negative stays
    assert by(rates, "bpcer", 0.05).value == 9 / 20  # from 10.5 on, one positive is missed


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


def test_a_score_on_the_threshold_is_called_positive():
    found = threshold_rates([False, True], [0.5, 0.5], ["", "a"], 0.5)
    assert by(found, "apcer", source="a").value == 0
    assert by(found, "bpcer").value == 1


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


def test_terms_name_every_measure():
    assert set(TERMS) == {"pad", "medical", "generic"}
    measures = {rate.measure for rate in roc_rates(*many(0, 20, {"a": 20}))}
    measures |= {rate.measure for rate in threshold_rates(*many(0, 20, {"a": 20}), 0.5)}
    for terms in TERMS.values():
        assert isinstance(terms, Terms)
        words = [getattr(terms, measure) for measure in sorted(measures)]
        assert all(words)
        assert len(set(words)) == len(words)
    assert TERMS["pad"].bpcer == "BPCER"
    assert TERMS["medical"].tdr == "Sensitivity"
    assert Rate("eer", math.nan, "", 0.5).note == ""
