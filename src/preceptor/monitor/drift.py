"""Drift of quantities: how well the images of a log are told from validation images by each.

The measure is an AUC, P(value of a log image > value of a validation image): 0.5 if the
distributions are equal, with the intervals of the library's own bootstrap. A shift of the values
moves their AUC away from 0.5, a change of their spread that of their distances from the median of
their own side. Images of the log are taken as independent, since a log has no groups. Features are
compared by the AUC of a linear classifier that was trained on other images of both sides
(D. Lopez-Paz, M. Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from preceptor.calibration.make_reference import alarm_interval
from preceptor.errors import InputError
from preceptor.evaluation.bootstrap import two_level_bootstrap
from preceptor.evaluation.paired_tests import LEVEL
from preceptor.evaluation.shrinkage import ledoit_wolf
from preceptor.monitor.prediction_log import PredictionLog
from preceptor.predictor.map_statistics import MAP_STATISTICS
from preceptor.predictor.prediction import scores_of
from preceptor.predictor.reference import Reference

LEAST = 0.05
"""Smallest distance of an AUC from 0.5 that counts as drift."""
LARGEST_SAMPLE = 5_000
"""Largest number of images of each side."""

_LEAST_IMAGES = 20
# Blocks of neighbors in a log, such as images of one subject, that are on one side of the split.
_BLOCKS = 20
_TITLES = {
    "map_x": "map center across",
    "map_y": "map center down",
    "map_area": "map area",
    "map_entropy": "map entropy",
}

Change = Literal["shift", "spread", "classifier"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Quantity:
    """Values of a quantity on both sides.

    Args:
        name: Name.
        known: (m,) values of validation images.
        groups: (m,) groups of these images.
        new: (n,) values of log images.
    """

    name: str
    known: Floats
    groups: NDArray[np.object_]
    new: Floats


@dataclass(frozen=True)
class Drift:
    """Drift of a quantity.

    Args:
        quantity: Name of the quantity.
        change: What is compared: the values, their distances from the median of their own side
            (validation or log), or the output of a classifier.
        auc: P(log > validation).
        low, high: Interval, at a level that is corrected for the number of intervals; NaN where the
            AUC is 0 or 1, and where there is none.
        known, new: Medians of the quantity, NaN for classifiers.
        images: Number of log images.
        is_drift: Whether the interval excludes 0.5 and the AUC is at least `LEAST` away from it.
        compared: Whether a drift could be found; false without an interval, as of validation images
            that are all of one group.
    """

    quantity: str
    change: Change
    auc: float
    low: float
    high: float
    known: float
    new: float
    images: int
    is_drift: bool
    compared: bool


@dataclass(frozen=True)
class Alarms:
    """Share of the log images that were flagged as unfamiliar.

    Args:
        share: Share.
        low, high: Exact interval (Clopper and Pearson) over images.
        expected: Interval of the rate on images of the same kind, see `alarm_interval`.
        is_drift: Whether the share is certainly above that interval.
    """

    share: float
    low: float
    high: float
    expected: tuple[float, float]
    is_drift: bool


@dataclass(frozen=True, eq=False)
class Drifts:
    """Comparison of a log with a reference.

    Args:
        drifts: Drift by quantity and change.
        quantities: Values of the quantities that are single numbers.
        alarms: Images that were flagged; None = not logged.
        level: Level of each interval.
        sampled: Number of log images that are compared.
    """

    drifts: list[Drift]
    quantities: list[Quantity]
    alarms: Alarms | None
    level: float
    sampled: int

    @property
    def found(self) -> list[str]:
        """Names of the quantities with drift, in order and once each."""
        names = [one.quantity for one in self.drifts if one.is_drift]
        if self.alarms is not None and self.alarms.is_drift:
            names.append("unfamiliar images")
        return list(dict.fromkeys(names))

    @property
    def not_compared(self) -> list[str]:
        """Names of the quantities of which a comparison has no interval."""
        return list(dict.fromkeys(one.quantity for one in self.drifts if not one.compared))


def compare(
    log: PredictionLog, reference: Reference, positive: int | None, least: float = LEAST
) -> Drifts:
    """Compare a log with the validation images of a reference.

    Args:
        log: Log of the same model.
        reference: Reference of the model.
        positive: Index of the positive class, or None.
        least: Smallest distance of an AUC from 0.5 that counts as drift.

    Raises:
        InputError: The log has too few images, or is of another model.
    """
    if log.distances is None:
        raise InputError(
            "the log has no distances from the training images: it was made with another model; "
            "predict with the model of the reference"
        )
    if len(log) < _LEAST_IMAGES:
        raise InputError(
            f"the log has {len(log)} predictions; a comparison needs {_LEAST_IMAGES} or more"
        )
    known, new = (_sample(count) for count in (len(reference.labels), len(log)))
    quantities = _quantities(log, reference, positive, known, new)
    classified = _classified(log, reference)
    count = 2 * len(quantities) + (classified is not None) + (log.flagged is not None)
    level = 1 - (1 - LEVEL) / count
    drifts = []
    for one in quantities:
        drifts.append(_drift(one, "shift", one.known, one.new, level, least))
        apart = _from_median(one.known), _from_median(one.new)
        drifts.append(_drift(one, "spread", *apart, level, least))
    if classified is not None:
        sides = classified.known, classified.new
        drifts.append(_drift(classified, "classifier", *sides, level, least))
    return Drifts(drifts, quantities, _alarms(log, reference, level), level, len(new))


def _quantities(
    log: PredictionLog,
    reference: Reference,
    positive: int | None,
    known: NDArray[np.int64],
    new: NDArray[np.int64],
) -> list[Quantity]:
    """Quantities that both sides have, without missing values."""
    assert log.distances is not None
    before_scores, after_scores = (
        scores_of(side, positive).astype(np.float64)
        for side in (reference.probabilities, log.probabilities)
    )
    pairs: list[tuple[str, Floats, Floats]] = [
        ("score", before_scores, after_scores),
        ("distance", reference.distances, log.distances),
    ]
    if log.maps is not None:
        pairs += [
            (_TITLES[name], reference.maps[:, place].astype(np.float64), log.maps[:, place])
            for place, name in enumerate(MAP_STATISTICS)
        ]
    groups = np.array([f"g{code}" for code in reference.groups], object)
    found = []
    for name, before, after in pairs:
        first, second = before[known], after[new]
        there = np.isfinite(first)
        second = second[np.isfinite(second)]
        if there.sum() >= _LEAST_IMAGES and len(second) >= _LEAST_IMAGES:
            found.append(Quantity(name, first[there], groups[known][there], second))
    return found


def _classified(log: PredictionLog, reference: Reference) -> Quantity | None:
    """Output of a linear classifier for those halves of both sides that it was not trained on."""
    if log.features is None:
        return None
    width = reference.features.shape[1]
    if log.features.shape[1] != width:
        raise InputError(
            f"the log has {log.features.shape[1]} features per image and the model has {width}; "
            "give a log of the same model"
        )
    known, new = reference.features.astype(np.float64), log.features.astype(np.float64)
    groups = reference.groups[: len(known)]
    # Images of a group are on the same side of the split.
    held = np.isin(groups, np.unique(groups)[::2])
    new = new[_sample(len(new))]
    held_new = np.arange(len(new)) * _BLOCKS // len(new) % 2 == 0
    if min(held.sum(), (~held).sum()) < _LEAST_IMAGES:
        return None
    means = [side[~own].mean(0) for side, own in ((known, held), (new, held_new))]
    deviations = np.concatenate([known[~held] - means[0], new[~held_new] - means[1]])
    covariance, _ = ledoit_wolf(deviations)
    direction = np.linalg.solve(covariance, means[1] - means[0])
    names = np.array([f"g{code}" for code in groups[held]], object)
    return Quantity("features", known[held] @ direction, names, new[held_new] @ direction)


def _drift(
    one: Quantity, change: Change, known: Floats, new: Floats, level: float, least: float
) -> Drift:
    labels = np.repeat([False, True], [len(known), len(new)])
    values = np.concatenate([known, new])
    groups = np.concatenate([one.groups, np.full(len(new), "", object)])
    found = two_level_bootstrap(labels, values[None], groups=groups, level=level)
    area = float(found.estimate)
    # There is no interval where both sides are apart, or all values are equal.
    apart = math.isnan(found.low) and area in (0.0, 1.0)
    certain = apart or found.low > 0.5 or found.high < 0.5
    classifier = change == "classifier"
    return Drift(
        one.name,
        change,
        area,
        found.low,
        found.high,
        math.nan if classifier else float(np.median(one.known)),
        math.nan if classifier else float(np.median(one.new)),
        len(new),
        certain and (area - 0.5 if classifier else abs(area - 0.5)) >= least,
        apart or not math.isnan(found.low) or bool(np.ptp(values) == 0),
    )


def _from_median(values: Floats) -> Floats:
    """Distances of values from their median, which a shift does not change."""
    return np.abs(values - np.median(values))


def _alarms(log: PredictionLog, reference: Reference, level: float) -> Alarms | None:
    if log.flagged is None:
        return None
    count = int(log.flagged.sum())
    interval = binomtest(count, len(log)).proportion_ci(level)
    expected = alarm_interval(len(reference.distances), reference.rate)
    low, high = float(interval.low), float(interval.high)
    return Alarms(count / len(log), low, high, expected, low > expected[1])


def _sample(count: int) -> NDArray[np.int64]:
    """Places of at most `LARGEST_SAMPLE` of `count` items, at random and in order."""
    if count <= LARGEST_SAMPLE:
        return np.arange(count)
    drawn = np.random.default_rng(0).choice(count, LARGEST_SAMPLE, replace=False)
    return np.sort(drawn)
