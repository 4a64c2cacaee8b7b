"""Fit of a calibration on validation, and its error by cross-validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.evaluation.delong import unit_codes
from preceptor.evaluation.reliability import (
    TEMPERATURES,
    Bins,
    CalibrationError,
    calibration_error,
    cross_entropy,
    fit_isotonic,
    fit_temperature,
    reliability_bins,
)
from preceptor.predictor.calibration import SMALLEST, Calibration, log_odds, score_and_rest
from preceptor.predictor.prediction import scores_of

Method = Literal["temperature", "isotonic", "none"]

FOLDS = 5


@dataclass(frozen=True)
class Reliability:
    """Reliability of probabilities on validation.

    Args:
        error: Expected calibration error.
        bins: Bins of the reliability diagram.
        cross_entropy: Mean cross-entropy of the hits.
    """

    error: CalibrationError
    bins: Bins
    cross_entropy: float


def fit_calibration(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    positive: int | None,
    method: Literal["temperature", "isotonic"],
) -> Calibration:
    """Fit a calibration to labelled images.

    Args:
        probabilities: (n, C) probabilities of the network.
        labels: (n,) index of the class of each image.
        positive: Index of the positive class, or None.
        method: temperature or isotonic.

    Raises:
        InputError: Isotonic regression without a positive class, or no temperature is best.
    """
    if method == "isotonic":
        if positive is None:
            raise InputError(
                "isotonic regression is of the score, and the model has no positive class; choose "
                "temperature"
            )
        odds = log_odds(*score_and_rest(probabilities.astype(np.float64), positive))
        knots, values = fit_isotonic(labels == positive, odds)
        return Calibration("isotonic", knots=tuple(knots.tolist()), values=tuple(values.tolist()))
    given, classes = probabilities.astype(np.float64), labels
    if positive is not None:
        score, rest = score_and_rest(given, positive)
        given, classes = np.stack([rest, score], 1), labels == positive
    temperature = fit_temperature(classes, np.log(np.maximum(given, SMALLEST)))
    low, high = TEMPERATURES
    if temperature < low * 1.001:
        raise InputError(
            f"no temperature above {low:g} is best: the validation images are classified without "
            "an error; choose the method isotonic or none, or add validation images"
        )
    if temperature > high * 0.999:
        raise InputError(
            f"no temperature below {high:g} is best: the scores say nothing about the classes of "
            "the validation images; choose the method none, and check the model"
        )
    return Calibration("temperature", temperature)


def reliability(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.object_],
    positive: int | None,
) -> Reliability:
    """Reliability of the score, or without a positive class of the most probable class.

    Args:
        probabilities: (n, C).
        labels: (n,) index of the class of each image.
        groups: (n,) name of its group, or "".
        positive: Index of the positive class, or None.
    """
    scores = scores_of(probabilities, positive).astype(np.float64).clip(0, 1)
    hits = labels == (probabilities.argmax(1) if positive is None else positive)
    return Reliability(
        calibration_error(hits, scores, groups),
        reliability_bins(hits, scores),
        cross_entropy(hits, scores),
    )


def cross_validated(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.object_],
    positive: int | None,
    method: Literal["temperature", "isotonic"],
) -> NDArray[np.float32]:
    """Probabilities of which each part is calibrated by a fit to the other parts.

    An error on the images of the fit itself would be too small. Images of a group are in the same
    part; NaN for parts without a fit.

    Args:
        probabilities, labels, groups, positive, method: As in `fit_calibration` and `reliability`.
    """
    units = unit_codes(groups, len(labels))
    drawn = np.random.default_rng(0).permutation(int(units.max()) + 1) % FOLDS
    parts = drawn[units]
    found = np.full(probabilities.shape, np.nan, np.float32)
    for part in range(FOLDS):
        own = parts == part
        try:
            fitted = fit_calibration(probabilities[~own], labels[~own], positive, method)
        except InputError:  # a part of few images may have no fit
            continue
        found[own] = fitted(probabilities[own], positive)
    return found


def is_complete(values: NDArray[np.float32]) -> bool:
    """Whether all parts have a fit, see `cross_validated`."""
    return not math.isnan(float(values.sum()))
