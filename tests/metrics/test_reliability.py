from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.metrics.reliability import calibration_error, reliability_bins


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


def test_equal_scores_are_in_one_bin() -> None:
    found = reliability_bins([True] * 30 + [False] * 70, [0.5] * 100)
    assert (found.scores.tolist(), found.shares.tolist()) == ([0.5], [0.3])


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


def test_groups_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    shares = np.repeat(generator.random(40), 5)
    hits = np.repeat(generator.random(40) < shares[::5], 5)
    names = [f"g{number // 5}" for number in range(200)]
    alone = calibration_error(hits, shares, resamples=300)
    grouped = calibration_error(hits, shares, names, resamples=300)
    assert grouped.value == alone.value
    assert grouped.expected > 1.5 * alone.expected
    assert grouped.low <= alone.low


@pytest.mark.parametrize("scores", [[0.1], [0.1, 1.2], [0.1, np.nan]])
def test_invalid_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(InputError):
        calibration_error([True, False], scores)


@pytest.mark.parametrize(
    ("hits", "scores", "groups"),
    [
        ([True], [0.7], None),
        ([True, False] * 50, [0.9] * 100, ["a"] * 100),
        ([True, False] * 50, [0.5] * 100, None),  # an error of 0
    ],
)
def test_without_an_interval_there_is_none(
    hits: list[bool], scores: list[float], groups: list[str] | None
) -> None:
    found = calibration_error(hits, scores, groups)
    assert np.isnan([found.low, found.high]).all()
    assert np.isfinite(found.value)
