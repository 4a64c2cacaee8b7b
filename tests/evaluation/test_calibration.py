from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.isotonic import IsotonicRegression

from preceptor.errors import InputError
from preceptor.evaluation.calibration import fit_isotonic, fit_temperature


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
    assert fit_temperature([1, 0], logits) == pytest.approx(20)


@pytest.mark.parametrize("count", [1, 2, 7, 60, 1500])
@pytest.mark.parametrize("decimals", [1, 8])
def test_isotonic_regression_is_that_of_scikit_learn(count: int, decimals: int) -> None:
    generator = np.random.default_rng(count)
    scores = generator.random(count).round(decimals)
    hits = generator.random(count) < scores**2
    knots, values = fit_isotonic(hits, scores)
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, hits)
    np.testing.assert_array_equal(knots, expected.X_thresholds_)
    np.testing.assert_allclose(values, expected.y_thresholds_, atol=1e-12)
    grid = np.linspace(0, 1, 201)
    np.testing.assert_allclose(np.interp(grid, knots, values), expected.predict(grid), atol=1e-12)


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="must be"):
        fit_temperature([0], np.zeros((2, 2)))
    with pytest.raises(InputError, match="must be"):
        fit_temperature([], np.zeros((0, 2)))
    with pytest.raises(InputError, match="must be"):
        fit_isotonic([True], [0.1, 0.2])
