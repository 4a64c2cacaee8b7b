"""Reliability, and calibration by temperature."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from preceptor.deploy.calibrate import calibration_error, fit_temperature
from preceptor.errors import InputError


def slow_error(hits: NDArray[np.bool_], scores: NDArray[np.float64], bins: int) -> float:
    """ECE of distinct scores whose number is a multiple of that of the bins."""
    order = np.argsort(scores)
    parts = np.split(order, bins)
    return sum(abs(hits[part].mean() - scores[part].mean()) / bins for part in parts)


@pytest.mark.parametrize("bins", [1, 5, 10])
def test_the_error_is_that_of_its_definition(bins: int) -> None:
    generator = np.random.default_rng(bins)
    scores = generator.random(200)
    hits = generator.random(200) < scores**2
    found, _ = calibration_error(hits, scores, bins)
    assert found == pytest.approx(slow_error(hits, scores, bins))


def test_the_error_of_a_calibrated_model_is_as_expected() -> None:
    generator, found = np.random.default_rng(0), []
    for _ in range(100):
        scores = generator.random(200)
        found.append(calibration_error(generator.random(200) < scores, scores))
    errors, expected = np.transpose(found)
    assert errors.mean() == pytest.approx(expected.mean(), rel=0.06)
    assert calibration_error(scores < 0.5, scores)[0] > 3 * expected.max()


@pytest.mark.parametrize("scores", [[0.1], [0.1, 1.2], [0.1, np.nan]])
def test_invalid_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(InputError):
        calibration_error([True, False], scores)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_of_a_minimization(classes: int, scale: float) -> None:
    generator = np.random.default_rng(classes)
    logits = generator.normal(size=(300, classes)) * 2
    shares = np.exp(log_softmax(logits, axis=1))
    labels = np.array([generator.choice(classes, p=row) for row in shares])
    given = logits * scale

    def loss(logarithm: float) -> float:
        scaled = log_softmax(given / np.exp(logarithm), axis=1)
        return float(-scaled[np.arange(300), labels].mean())

    best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(labels, given) == pytest.approx(np.exp(best.x), rel=1e-5)
    # Logits are known up to a constant for each image.
    shifted = given + generator.normal(size=(300, 1))
    assert fit_temperature(labels, shifted) == pytest.approx(np.exp(best.x), rel=1e-5)


def test_a_fit_without_a_minimum_is_at_the_end_of_the_range() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature([0, 1], logits) == pytest.approx(0.05)
    assert fit_temperature([1, 0], logits) == pytest.approx(1000)
