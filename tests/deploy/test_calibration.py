"""Calibration of probabilities against the formulas on logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, logit, softmax
from sklearn.covariance import EmpiricalCovariance, LedoitWolf

from preceptor.deploy.calibrate import (
    CHANGES,
    apply,
    changed_copies,
    choose_distance,
    fit_calibration,
    fit_gaussians,
)
from preceptor.deploy.network import steps_at
from preceptor.deploy.prediction import Calibration
from preceptor.errors import InputError

ISOTONIC = Calibration(
    "isotonic",
    knots=tuple(logit([0.1, 0.4, 0.4000001, 0.9]).tolist()),
    values=(0.0, 0.2, 0.7, 1.0),
)


@pytest.mark.parametrize(("classes", "positive"), [(2, 1), (2, 0), (2, None), (4, None)])
def test_temperature_scaling_is_that_of_logits(classes: int, positive: int | None) -> None:
    logits = np.random.default_rng(0).normal(size=(50, classes)) * 9
    given = softmax(logits, axis=1).astype(np.float32)
    found = apply(Calibration("temperature", 2.5), given, positive)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(log_softmax(logits, 1) / 2.5, axis=1), atol=2e-6)


CALIBRATIONS = [*(Calibration("temperature", one) for one in (0.05, 0.3, 2.5, 20.0)), ISOTONIC]


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_decisions_are_those_of_the_uncalibrated_score(calibration: Calibration) -> None:
    """Also for scores that are a threshold, and for their neighbors, printed or not."""
    drawn = np.random.default_rng(0).uniform(-40, 40, (60, 3))
    logits = np.concatenate([drawn, drawn / 10]).astype(np.float32)
    middle = softmax(logits, axis=1)
    edges = np.array([0, 1e-44, 1e-30, 0.4, 0.5, 0.999999, 1], np.float32)
    middle = np.concatenate([middle, np.stack([0 * edges, edges, 1 - edges], 1)])
    scores = middle[:, 1]
    given = []
    for end in (-1, 2):
        near = middle.copy()
        near[:, 1] = np.nextafter(scores, np.float32(end)).clip(0, 1)
        given.append(near)
    shares = np.concatenate([middle, *given])
    generator = np.random.default_rng(1)
    for _ in range(40):
        some = generator.choice(scores, 3).astype(np.float64)
        raw = {"eer": some[0], "a": some[1], "b": some[2], "c": np.nextafter(some[2], 0)}
        steps = {step.threshold: step.calibrated for step in steps_at(calibration, raw.values())}
        known = {rule: steps[value] for rule, value in raw.items()}
        found = apply(calibration, shares, 1, raw.values())[:, 1]
        printed = np.array([float(str(value)) for value in found])
        for rule, threshold in raw.items():
            expected = shares[:, 1].astype(np.float64) >= threshold
            np.testing.assert_array_equal(found.astype(np.float64) >= known[rule], expected)
            np.testing.assert_array_equal(printed >= known[rule], expected)


def test_thresholds_beyond_all_scores_are_no_steps() -> None:
    assert steps_at(Calibration("temperature", 2.0), [1.7, -0.2]) == []


def test_the_other_classes_keep_their_ratios() -> None:
    given = np.array([[0.1, 0.3, 0.6], [0.0, 1.0, 0.0]], np.float32)
    found = apply(ISOTONIC, given, 1)
    assert found[0, 0] / found[0, 2] == pytest.approx(1 / 6, rel=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert np.isfinite(found).all()


def test_an_overconfident_model_has_a_temperature() -> None:
    """Trained for long, a network is sure of its errors too: the best temperature was 64."""
    generator = np.random.default_rng(0)
    odds = generator.normal(size=400)
    labels = (generator.random(400) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    sure = 1 / (1 + np.exp(-64 * odds))
    given = np.stack([1 - sure, sure], 1).astype(np.float32)
    assert 30 < fit_calibration(given, labels, 1, "temperature").temperature < 200


def test_scores_that_say_nothing_have_none() -> None:
    generator = np.random.default_rng(0)
    score = generator.random(400).astype(np.float32)
    labels = (generator.random(400) < 1 - score).astype(np.int64)
    with pytest.raises(InputError, match="the scores say nothing"):
        fit_calibration(np.stack([1 - score, score], 1), labels, 1, "temperature")


@pytest.mark.parametrize(
    ("kind", "rows", "tolerance"), [(LedoitWolf, 300, 1e-4), (EmpiricalCovariance, 20_000, 0.01)]
)
def test_distances_are_those_of_scikit_learn(kind: Any, rows: int, tolerance: float) -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [rows, rows // 2])
    mixed = generator.normal(size=(len(labels), 4)) @ generator.normal(size=(4, 4))
    features = (mixed + labels[:, None] * 3).astype(np.float32)
    means = np.stack([features[labels == one].mean(0, np.float64) for one in (0, 1)])
    fitted = kind(assume_centered=True).fit(features - means[labels])
    other = (generator.normal(size=(50, 4)) * 4).astype(np.float32)
    squares = [fitted.mahalanobis(other - mean) for mean in means]
    found = fit_gaussians(features, labels).distances(other)
    np.testing.assert_allclose(found, np.sqrt(np.min(squares, 0)), tolerance)


def test_the_kind_that_tells_changed_copies_is_chosen() -> None:
    near, far = np.arange(10.0), np.arange(10.0) + 20
    for better in ("mahalanobis", "energy"):
        copies = {one: far if one == better else near for one in ("mahalanobis", "energy")}
        chosen, aucs = choose_distance(
            {"mahalanobis": near, "energy": near}, {"blur": copies, "noise": copies}
        )
        assert chosen == better
        assert aucs[chosen] == {"blur": 1.0, "noise": 1.0}
    same = {"mahalanobis": near, "energy": near}
    assert choose_distance(same, {"blur": same})[0] == "mahalanobis"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(40, 56), (8, 9), (3, 5), (1, 1)])
def test_changed_copies_are_images_of_any_size(change: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    (first,), (again,) = (list(changed_copies([pixels], change)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    np.testing.assert_array_equal(first, again)
    if change == "tiles" and size == (40, 56):
        assert sorted(first.ravel()) == sorted(pixels.ravel())
    if min(size) > 1:
        assert (first.shape != pixels.shape) or (first != pixels).any()
