from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.isotonic import IsotonicRegression

from preceptor.errors import InputError
from preceptor.metrics.reliability import fit_isotonic, fit_temperature


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


@pytest.mark.parametrize("scale", [1.0, 3.0, 6.0])
def test_centered_isotonic_regression_is_nearer_to_the_probabilities(scale: float) -> None:
    """In log-odds, also of an overconfident model, and without steps between close scores."""
    generator = np.random.default_rng(0)

    def drawn(count: int) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        odds = generator.normal(size=count) * 2
        probabilities = expit(odds)
        return generator.random(count) < probabilities, odds * scale, probabilities

    _, odds, truth = drawn(20_000)
    ours, theirs = [], []
    for _ in range(10):
        hits, known, _ = drawn(300)
        knots, values = fit_isotonic(hits, known)
        assert (np.diff(values) / np.diff(knots)).max() < 10
        ours.append(((np.interp(odds, knots, values) - truth) ** 2).mean())
        plain = IsotonicRegression(out_of_bounds="clip").fit(known, hits)
        theirs.append(((plain.predict(odds) - truth) ** 2).mean())
    assert np.mean(ours) < 0.8 * np.mean(theirs)


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="must be"):
        fit_temperature([0], np.zeros((2, 2)))
    with pytest.raises(InputError, match="must be"):
        fit_temperature([], np.zeros((0, 2)))
    with pytest.raises(InputError, match="must be"):
        fit_isotonic([True], [0.1, 0.2])
