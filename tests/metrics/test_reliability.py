"""Reliability, and calibration by temperature and isotonic regression."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.isotonic import IsotonicRegression

from preceptor.errors import InputError
from preceptor.metrics.reliability import (
    calibration_error,
    fit_isotonic,
    fit_temperature,
    reliability_bins,
)


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
    found = calibration_error(hits, scores, bins=bins, resamples=20)
    assert found.value == pytest.approx(slow_error(hits, scores, bins))
    table = reliability_bins(hits, scores, bins)
    assert table.counts.tolist() == [200 / bins] * bins
    gaps = (table.counts * abs(table.shares - table.scores)).sum() / 200
    assert gaps == pytest.approx(found.value)


@pytest.mark.parametrize("sharpness", [1.0, 1.6])
def test_the_interval_covers(sharpness: float) -> None:
    """The population's error over its own bins; 0 for a calibrated model."""
    generator = np.random.default_rng(0)

    def overconfident(shares: NDArray[np.float64]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = 1 / (1 + (1 / shares - 1) ** sharpness)
        return scores

    population = np.sort(generator.random(100_000))
    parts = np.split(population, 10)
    truth = np.mean([abs((part - overconfident(part)).mean()) for part in parts])
    covered = []
    for seed in range(150):
        shares = generator.random(200)
        hits = generator.random(200) < shares
        found = calibration_error(hits, overconfident(shares), resamples=200, seed=seed)
        covered.append(found.low - 1e-9 <= truth <= found.high)
    assert np.mean(covered) > 0.89


def test_the_interval_of_one_bin_is_that_of_a_share() -> None:
    """A model that says the same of all images: the error may be many times the one found."""
    found = calibration_error(np.arange(200) < 102, np.full(200, 0.5))
    assert found.value == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01 + 1.96 * np.sqrt(0.25 / 200), abs=0.01)


def test_the_interval_of_many_images_has_a_width() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(100_000)
    hits = generator.random(100_000) < 0.4 + 0.2 * scores
    found = calibration_error(hits, scores, resamples=100)
    assert found.low < 0.2 < found.high < found.low + 0.01


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


@pytest.mark.parametrize("count", [1, 2, 7, 60, 1500])
@pytest.mark.parametrize("decimals", [1, 8])
def test_isotonic_regression_is_that_of_scikit_learn(count: int, decimals: int) -> None:
    generator = np.random.default_rng(count)
    """Its blocks: each has a knot at its mean score, with its share of hits."""
    generator = np.random.default_rng(count)
    scores = generator.random(count).round(decimals)
    hits = generator.random(count) < scores**2
    knots, values = fit_isotonic(hits, scores)
    fitted = IsotonicRegression().fit_transform(scores, hits.astype(float)).round(9)
    blocks = np.unique(fitted)
    np.testing.assert_allclose(values, blocks, atol=1e-8)
    np.testing.assert_allclose(knots, [scores[fitted == one].mean() for one in blocks], atol=1e-12)
    assert (np.diff(knots) > 0).all()
