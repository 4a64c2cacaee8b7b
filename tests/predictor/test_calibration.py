from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from preceptor.errors import InputError
from preceptor.predictor.calibration import Calibration, calibration_from

ISOTONIC = Calibration("isotonic", knots=(0.1, 0.4, 0.4000001, 0.9), values=(0.0, 0.2, 0.7, 1.0))


@pytest.mark.parametrize(("classes", "positive"), [(2, 1), (2, 0), (2, None), (4, None)])
def test_temperature_scaling_is_that_of_logits(classes: int, positive: int | None) -> None:
    logits = np.random.default_rng(0).normal(size=(50, classes)) * 9
    given = softmax(logits, axis=1).astype(np.float32)
    found = Calibration("temperature", 2.5)(given, positive)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(log_softmax(logits, 1) / 2.5, axis=1), atol=2e-6)


@pytest.mark.parametrize("calibration", [Calibration("temperature", 0.3), ISOTONIC])
def test_it_is_increasing_and_keeps_decisions(calibration: Calibration) -> None:
    scores = np.sort(np.concatenate([np.linspace(0, 1, 2001), [0.4, 0.4000001, 1e-9]]))
    given = np.stack([1 - scores, scores], 1).astype(np.float32)
    found = calibration(given, 1).astype(np.float64)
    assert (np.diff(found[:, 1]) >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    for threshold in (0.0, 0.1, 0.3, 0.5, 0.95):
        mapped = calibration.of_score(threshold)
        clear = abs(scores - threshold) > 1e-4
        before, after = scores >= threshold, found[:, 1] >= mapped
        assert (before == after)[clear].all()
    assert calibration.of_score(1.7) == 1.7
    assert calibration.of_score(-0.2) == -0.2


def test_the_other_classes_keep_their_ratios() -> None:
    given = np.array([[0.1, 0.3, 0.6], [0.0, 1.0, 0.0]], np.float32)
    found = ISOTONIC(given, 1)
    assert found[0, 0] / found[0, 2] == pytest.approx(1 / 6, rel=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert np.isfinite(found).all()


def test_it_is_read_as_it_is_written() -> None:
    for one in (Calibration("temperature", 2.0), ISOTONIC):
        assert calibration_from(json.loads(json.dumps(asdict(one))), True) == one
    assert calibration_from(None, True) is None
    with pytest.raises(InputError, match="without a positive class"):
        calibration_from(json.loads(json.dumps(asdict(ISOTONIC))), False)
