"""Calibration of probabilities as part of an exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from preceptor.predictor.calibration import SMALLEST, Calibration


def calibrated(
    probabilities: Tensor,
    calibration: Calibration,
    positive: int | None,
    thresholds: Sequence[float] = (),
) -> Tensor:
    """Calibrated probabilities, by the formulas of `Calibration`.

    Args:
        probabilities: (B, C) float32.
        calibration: Calibration of the model.
        positive: Index of the positive class, or None.
        thresholds: Thresholds of the uncalibrated score at which decisions are kept.
    """
    given = probabilities.double()
    if positive is None:
        return _logarithm(given).div(calibration.temperature).softmax(1).float()
    own = torch.arange(given.shape[1]) == positive
    others = given.masked_fill(own, 0.0)
    rest = others.sum(1, keepdim=True)
    score = given[:, positive : positive + 1]
    odds = _logarithm(score) - _logarithm(rest)
    if calibration.kind == "temperature":
        changed = (odds / calibration.temperature).sigmoid()
    else:
        changed = calibration.mixed(_linear(odds, calibration), score)
    for step in calibration.steps_at(thresholds):
        above, below = changed.clamp(min=step.above), changed.clamp(max=step.below)
        changed = torch.where(score >= step.threshold, above, below)
    even = torch.where(own, 0.0, 1.0 / (given.shape[1] - 1)).double()
    shares = torch.where(rest > 0, others / torch.where(rest > 0, rest, 1.0), even)
    return torch.where(own, changed, shares * (1 - changed)).float()


def _logarithm(values: Tensor) -> Tensor:
    return values.clamp(min=SMALLEST).log()


def _linear(odds: Tensor, calibration: Calibration) -> Tensor:
    """(B, 1) piecewise linear function: the sum of the rises of its pieces."""
    knots = torch.tensor(calibration.knots, dtype=torch.float64)
    values = torch.tensor(calibration.values, dtype=torch.float64)
    widths = knots.diff()
    inside = (odds - knots[:-1]).clamp(min=0.0).minimum(widths)
    rises = inside * (values.diff() / widths)
    return values[0] + rises.sum(1, keepdim=True)
