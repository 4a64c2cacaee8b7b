"""Drift between a reference and a log, on drawn values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from preceptor.errors import InputError
from preceptor.evaluation.auc import auc
from preceptor.monitor.drift import Drifts, compare
from preceptor.monitor.page import headline, sentences_of
from preceptor.monitor.prediction_log import PredictionLog
from preceptor.predictor.reference import Reference


def reference_of(generator: np.random.Generator, images: int = 300) -> Reference:
    score = generator.beta(2, 2, images).astype(np.float32)
    distances = generator.gamma(5, size=images)
    return Reference(
        calibration=None,
        kind="energy",
        rate=0.05,
        gaussians=None,
        probabilities=np.stack([1 - score, score], 1),
        labels=(generator.random(images) < score).astype(np.int64),
        groups=np.arange(images),
        distances=distances,
        maps=generator.beta(4, 4, (images, 4)).astype(np.float32),
        features=generator.normal(size=(images, 8)).astype(np.float32),
    )


def log_of(
    generator: np.random.Generator,
    images: int = 200,
    *,
    score: tuple[float, float] = (2, 2),
    distance: float = 5,
    shift: float = 0,
) -> PredictionLog:
    drawn = generator.beta(*score, images)
    maps = generator.beta(4, 4, (images, 4))
    maps[0] = np.nan
    return PredictionLog(
        probabilities=np.stack([1 - drawn, drawn], 1),
        distances=generator.gamma(distance, size=images),
        flagged=np.zeros(images, bool),
        maps=maps,
        features=(generator.normal(size=(images, 8)) + shift).astype(np.float32),
        bad=0,
    )


def changes(found: Drifts) -> set[tuple[str, str]]:
    return {(one.quantity, one.change) for one in found.drifts if one.is_drift}


def test_the_direction_of_a_shift_is_that_of_its_numbers() -> None:
    """A tenth of the validation scores are near 1: their mean is above that of the log, but most
    scores of the log are above most of validation."""
    generator = np.random.default_rng(0)
    reference, log = reference_of(generator), log_of(generator)
    known = np.where(generator.random(300) < 0.1, 0.97, 0.02) + generator.random(300) * 0.02
    new = 0.05 + generator.random(200) * 0.02
    found = compare(
        replace(log, probabilities=np.stack([1 - new, new], 1)),
        replace(reference, probabilities=np.stack([1 - known, known], 1).astype(np.float32)),
        1,
    )
    one = next(one for one in found.drifts if (one.quantity, one.change) == ("score", "shift"))
    assert one.is_drift
    assert new.mean() < known.mean()
    assert one.new == pytest.approx(np.median(new))
    assert one.new > one.known
    text = next(text for text in sentences_of(found) if "score" in text)
    assert text == (
        f"Values of score are higher than on validation in {100 * one.auc:.3g} % of the pairs of "
        f"images; their median is {one.new:.3f} instead of {one.known:.3f}."
    )


def test_medians_of_a_confident_model_can_be_told_apart() -> None:
    generator = np.random.default_rng(0)
    reference, log = reference_of(generator), log_of(generator)
    known = 1 - 2e-5 + 1e-6 * generator.random(300)
    new = 1 - 1e-5 + 1e-6 * generator.random(200)
    found = compare(
        replace(log, probabilities=np.stack([1 - new, new], 1)),
        replace(reference, probabilities=np.stack([1 - known, known], 1)),
        1,
    )
    text = next(text for text in sentences_of(found) if text.startswith("Values of score"))
    assert "their median is 0.99999" in text
    assert "instead of 0.99998" in text


def test_every_kind_of_drift_is_found_and_no_other() -> None:
    generator = np.random.default_rng(0)
    reference = reference_of(generator)
    assert changes(compare(log_of(generator), reference, 1)) == set()
    shifted = compare(log_of(generator, score=(4, 2)), reference, 1)
    assert changes(shifted) == {("score", "shift")}
    wider = compare(log_of(generator, score=(0.4, 0.4)), reference, 1)
    assert changes(wider) == {("score", "spread")}
    far = compare(log_of(generator, distance=9), reference, 1)
    assert ("distance", "shift") in changes(far)
    other = compare(log_of(generator, shift=0.7), reference, 1)
    assert changes(other) == {("features", "classifier")}
    assert other.found == ["features"]


def test_the_measure_is_the_auc_of_log_against_validation() -> None:
    generator = np.random.default_rng(1)
    reference, log = reference_of(generator), log_of(generator, score=(3, 2))
    (first, *_) = compare(log, reference, 1).drifts
    values = np.concatenate([reference.probabilities[:, 1], log.probabilities[:, 1]])
    assert first.auc == pytest.approx(auc(np.repeat([False, True], [300, 200]), values))
    assert first.low < first.auc < first.high


def test_equal_images_drift_as_seldom_as_stated() -> None:
    """All intervals together hold with 95 %: at most 5 % of logs without drift are alarms."""
    generator = np.random.default_rng(2)
    alarms = 0
    for _ in range(20):
        reference, log = reference_of(generator, 80), log_of(generator, 40)
        alarms += bool(compare(log, reference, 1, least=0).found)
    assert alarms <= 4  # of 20; at 5 %, P(more) = 0.3 %


@pytest.mark.parametrize(("scale", "moved"), [(1.0, 3.0), (1.0, -3.0), (0.5, 8.0), (2.0, 3.0)])
def test_spread_is_told_apart_from_shift(scale: float, moved: float) -> None:
    """A shift alone is no change of spread, and values that are closer together are narrower."""
    generator = np.random.default_rng(6)
    reference, log = reference_of(generator), log_of(generator, 600)
    assert log.distances is not None
    middle = np.median(log.distances)
    log.distances[:] = middle + scale * (log.distances - middle) + moved
    by_change = {
        one.change: one for one in compare(log, reference, 1).drifts if one.quantity == "distance"
    }
    assert by_change["shift"].is_drift
    spread = by_change["spread"]
    assert spread.is_drift == (scale != 1)
    assert scale == 1 or (spread.auc > 0.5) == (scale > 1)


def test_flagged_images_are_compared_with_the_rate() -> None:
    generator = np.random.default_rng(3)
    reference, log = reference_of(generator), log_of(generator)
    assert log.flagged is not None
    log.flagged[:40] = True
    found = compare(log, reference, 1)
    assert found.alarms is not None
    assert found.alarms.share == 0.2
    assert found.found == ["unfamiliar images"]


def test_sides_apart_are_drift_without_an_interval() -> None:
    generator = np.random.default_rng(4)
    reference, log = reference_of(generator), log_of(generator)
    assert log.distances is not None
    log.distances[:] += 1000
    (found,) = (
        one
        for one in compare(log, reference, 1).drifts
        if (one.quantity, one.change) == ("distance", "shift")
    )
    assert (found.auc, found.is_drift) == (1.0, True)


def test_a_comparison_without_an_interval_is_not_called_no_drift() -> None:
    """All validation images are of one group, so that nothing can be resampled."""
    generator = np.random.default_rng(4)
    reference, log = reference_of(generator), log_of(generator)
    found = compare(log, replace(reference, groups=np.zeros_like(reference.groups)), 1)
    assert "score" in found.not_compared
    assert headline(found).startswith("No drift was found, but not all was compared: score")
    assert "whether there is a drift is not known" in " ".join(sentences_of(found))
    assert compare(log, reference, 1).not_compared == []


def test_small_or_foreign_logs_are_refused() -> None:
    generator = np.random.default_rng(5)
    reference = reference_of(generator)
    with pytest.raises(InputError, match="has 5 predictions; a comparison needs 20"):
        compare(log_of(generator, 5), reference, 1)
    log = log_of(generator)
    assert log.features is not None
    other = replace(log, features=log.features[:, :3])
    with pytest.raises(InputError, match="3 features per image and the model has 8"):
        compare(other, reference, 1)
