"""Calibration of probabilities: temperature scaling, or centered isotonic regression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from preceptor.predictor.json_keys import JsonKeys

CalibrationKind = Literal["temperature", "isotonic"]

SMALLEST = float(np.finfo(np.float32).tiny)
"""Smallest probability in logarithms."""

# Isotonic regression is constant below its first knot and above its last one. This share of the
# score itself is added, so that different scores stay different: AUC and decisions do not change,
# and no probability is 0 or 1.
_OWN_SHARE = 0.01
_TWO = np.float32(2)


class Step(NamedTuple):
    """Threshold at which a calibration keeps decisions.

    Args:
        threshold: Threshold of the uncalibrated score.
        below, above: Highest calibrated score below it, and lowest at or above it: two neighboring
            float32 numbers.
    """

    threshold: float
    below: float
    above: float

    @property
    def calibrated(self) -> float:
        """Threshold of the calibrated score, which is in the middle, where no score is."""
        return (self.below + self.above) / 2


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model, fitted on validation.

    With a positive class, its probability, the score s, becomes g(s), a strictly increasing
    function, and the other probabilities are scaled so that they add up to 1 − g(s). For two
    classes and temperature scaling this is softmax(logits / T). Without a positive class, which
    only temperature scaling allows, all probabilities become softmax(logits / T).

    Args:
        kind: temperature, g(s) = σ(logit(s) / T); or isotonic, g(s) = 0.99 r(logit(s)) + 0.01 s,
            where r is linear between knots.
        temperature: T.
        knots: Increasing log-odds.
        values: Value of r at each knot.

    Example:
        >>> Calibration("temperature", 2.0)(np.array([[0.1, 0.9]], np.float32), 1).round(3).tolist()
        [[0.25, 0.75]]
        >>> round(Calibration("isotonic", knots=(-2.0, 2.0), values=(0.0, 0.8)).of_score(0.5), 3)
        0.401
    """

    kind: CalibrationKind
    temperature: float = 1.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __call__(
        self,
        probabilities: NDArray[np.float32],
        positive: int | None,
        thresholds: Iterable[float] = (),
    ) -> NDArray[np.float32]:
        """Calibrated probabilities.

        Args:
            probabilities: (n, C).
            positive: Index of the positive class, or None.
            thresholds: Thresholds of the uncalibrated score at which decisions are kept, see
                `steps_at`.
        """
        given = probabilities.astype(np.float64)
        if positive is None:
            logits = np.log(np.maximum(given, SMALLEST)) / self.temperature
            shares = np.exp(logits - logits.max(1, keepdims=True))
            return np.asarray(shares / shares.sum(1, keepdims=True), np.float32)
        rest = np.delete(given, positive, 1)
        total = rest.sum(1, keepdims=True)
        calibrated = self._of_scores(*score_and_rest(given, positive))
        for step in self.steps_at(thresholds):
            above = given[:, positive] >= step.threshold
            calibrated = np.where(
                above, np.maximum(calibrated, step.above), np.minimum(calibrated, step.below)
            )
        shares = np.where(total > 0, rest / np.where(total > 0, total, 1), 1 / rest.shape[1])
        others = shares * (1 - calibrated)[:, None]
        return np.insert(others, positive, calibrated, axis=1).astype(np.float32)

    def _of_scores(
        self, scores: NDArray[np.float64], rest: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """g(s) of each score s; `rest` is 1 − s without the rounding of a score close to 1."""
        odds = log_odds(scores, rest)
        if self.kind == "temperature":
            with np.errstate(over="ignore"):  # 1 / ∞ = 0
                calibrated: NDArray[np.float64] = 1 / (1 + np.exp(-odds / self.temperature))
            return calibrated
        regression = np.interp(odds, self.knots, self.values)
        return np.asarray(self.mixed(regression, scores), np.float64)

    def mixed(self, regression: Any, scores: Any) -> Any:
        """g(s) of r(s) and s, for arrays or tensors."""
        return (1 - _OWN_SHARE) * regression + _OWN_SHARE * scores

    def of_score(self, score: float) -> float:
        """g(s) of one score in [0, 1]."""
        return float(self._of_scores(np.array([score]), np.array([1 - score]))[0])

    def steps_at(self, thresholds: Iterable[float]) -> list[Step]:
        """Thresholds of the uncalibrated score with those of the calibrated score, increasing.

        By rounding, a score equal to a threshold may be below it after both are calibrated, and
        several scores have the same calibrated one in float32. Calibrated scores are therefore
        limited: one is above the calibrated threshold if and only if the score was at or above the
        threshold. Different thresholds stay different. Thresholds outside of [0, 1], above or below
        all scores, are left out.

        Example:
            >>> steps = Calibration("temperature", 2.0).steps_at([0.9, 0.5])
            >>> [(step.threshold, step.above) for step in steps]
            [(0.5, 0.5), (0.9, 0.75)]
        """
        wanted = sorted({float(one) for one in thresholds if 0 <= one <= 1})
        values = [np.float32(self.of_score(one)) for one in wanted]
        for at, threshold in enumerate(wanted):
            least = np.nextafter(values[at - 1], _TWO) if at else np.float32(SMALLEST)
            if threshold > 0:
                values[at] = max(values[at], least)
        for at in reversed(range(len(wanted))):
            most = np.nextafter(values[at + 1], -_TWO) if at + 1 < len(wanted) else np.float32(1)
            values[at] = min(values[at], most)
        return [
            Step(threshold, float(np.nextafter(value, -_TWO)), float(value))
            for threshold, value in zip(wanted, values, strict=True)
        ]

    def of_thresholds(self, thresholds: Mapping[str, float]) -> dict[str, float]:
        """Calibrated thresholds by rule; those outside of [0, 1] stay as they are."""
        known = {step.threshold: step.calibrated for step in self.steps_at(thresholds.values())}
        return {rule: known.get(value, value) for rule, value in thresholds.items()}


def score_and_rest(
    probabilities: NDArray[np.float64], positive: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of the positive class (n,), and sum of the others (n,), of probabilities (n, C).

    The sum is 1 − score without the rounding of a score close to 1.
    """
    return probabilities[:, positive], np.delete(probabilities, positive, 1).sum(1)


def log_odds(scores: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of score / rest, both at least `SMALLEST`."""
    found: NDArray[np.float64] = np.log(np.maximum(scores, SMALLEST))
    return found - np.log(np.maximum(rest, SMALLEST))


def calibration_from(values: object, positive: bool) -> Calibration | None:
    """Calibration from the values of its fields, as `dataclasses.asdict` returns them.

    Args:
        values: Values, or None for no calibration.
        positive: Whether the model has a positive class.

    Raises:
        InputError: A key is missing or unknown, or a value is invalid.
    """
    if values is None:
        return None
    found = JsonKeys(values, "key calibration", {one.name for one in fields(Calibration)})
    kind: CalibrationKind = found.choice("kind", get_args(CalibrationKind))
    temperature = found.number("temperature")
    if temperature <= 0:
        raise found.wrong("temperature", "a number above 0")
    if kind == "isotonic" and not positive:
        raise found.wrong("kind", "temperature for a model without a positive class")
    knots, heights = found.increasing("knots"), found.increasing("values", low=0, high=1)
    if len(set(knots)) < len(knots):
        raise found.wrong("knots", "increasing numbers")
    if len(knots) != len(heights) or (kind == "isotonic") != bool(knots):
        raise found.wrong("values", "a number for each knot, and knots for kind isotonic alone")
    return Calibration(kind, temperature, knots, heights)
