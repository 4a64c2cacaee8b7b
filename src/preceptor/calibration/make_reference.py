"""Making of a reference: calibration, distance and validation images of a trained model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta

from preceptor.calibration.changed_copies import CHANGES, changed_copies
from preceptor.calibration.distance import KINDS, choose_distance, fit_gaussians
from preceptor.calibration.fit import (
    Method,
    Reliability,
    cross_validated,
    fit_calibration,
    is_complete,
    reliability,
)
from preceptor.calibration.observations import Observations, StartTask, observe, sampled
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.evaluation.split_names import kind_of
from preceptor.predictor.predictor import Predictor
from preceptor.predictor.reference import DistanceKind, Gaussians, Reference

RATE = 0.01
LARGEST_SAMPLE = 10_000
# Validation images whose changed copies are predicted.
_COPIED = 200


@dataclass(frozen=True)
class MadeReference:
    """Reference with what is said about it.

    Args:
        reference: The reference.
        before: Reliability of the network on validation.
        after: Reliability with the calibration, by cross-validation; None = no calibration, or too
            few images for it.
        aucs: AUC by kind of distance and change of validation images.
        alarms: Interval with 95 % of the false alarm rates that result from validation sets of this
            size.
    """

    reference: Reference
    before: Reliability
    after: Reliability | None
    aucs: dict[DistanceKind, dict[str, float]]
    alarms: tuple[float, float]


def make_reference(
    predictor: Predictor,
    manifest: Manifest,
    *,
    method: Method = "temperature",
    rate: float = RATE,
    sample: int = LARGEST_SAMPLE,
    start_task: StartTask = lambda name, total: lambda count: None,
) -> MadeReference:
    """Calibrate a model on the validation images, and measure how far images are from training.

    Distances are estimated on training images. The kind is chosen on validation, see
    `choose_distance`; images of other kinds are not used.

    Args:
        predictor: Predictor of one model without a reference.
        manifest: Manifest with training and validation images; the latter of all validation sets.
        method: Calibration: temperature, isotonic or none.
        rate: Rate of false alarms: share of validation images that are flagged as unfamiliar.
        sample: Largest number of training images that are used.
        start_task: Called at the start of each pass over images.

    Raises:
        InputError: There are too few images, a class is missing, or an image cannot be read.
    """
    info = predictor.info
    table = manifest.table
    valid = table[(kind_of(table["split"]) == "val")]
    train = sampled(manifest.train_split, sample)
    _check(valid, train, info.classes, rate)
    labels = _codes(valid, info.classes)
    groups = valid["group"].to_numpy(object)
    own = observe(predictor, valid["path"], advance=start_task("validation images", len(valid)))
    trained = observe(predictor, train["path"], advance=start_task("training images", len(train)))
    gaussians = fit_gaussians(trained.features, _codes(train, info.classes))
    some = _spread(len(valid), _COPIED)
    paths = valid["path"].iloc[some].tolist()
    advance = start_task("changed copies", len(paths) * len(CHANGES))
    changed = {
        change: _distances(
            gaussians, observe(predictor, changed_copies(paths, change), advance=advance)
        )
        for change in CHANGES
    }
    plain = _distances(gaussians, own)
    kind, aucs = choose_distance({one: values[some] for one, values in plain.items()}, changed)

    positive = info.positive_index
    calibration, after = None, None
    probabilities = own.probabilities
    if method != "none":
        calibration = fit_calibration(own.probabilities, labels, positive, method)
        probabilities = calibration(own.probabilities, positive, info.thresholds.values())
        outside = cross_validated(own.probabilities, labels, groups, positive, method)
        if is_complete(outside):
            after = reliability(outside, labels, groups, positive)
    reference = Reference(
        calibration=calibration,
        kind=kind,
        rate=rate,
        gaussians=gaussians if kind == "mahalanobis" else None,
        probabilities=probabilities,
        labels=labels,
        distances=plain[kind],
        description={
            "manifest": manifest.source.name if manifest.source else "",
            "training_images": len(train),
            "validation_images": len(valid),
            "validation_sets": ", ".join(dict.fromkeys(valid["split"])),
            "copied_images": len(some),
        },
    )
    before = reliability(own.probabilities, labels, groups, positive)
    return MadeReference(reference, before, after, aucs, alarm_interval(len(valid), rate))


def alarm_interval(images: int, rate: float) -> tuple[float, float]:
    """Interval with 95 % of the false alarm rates of validation sets of a size.

    The rate on further images of the same kind depends on the validation images that happened to be
    drawn. With k = ⌊rate · (n + 1)⌋ it has the beta distribution with parameters k and n + 1 − k.

    Example:
        >>> [round(end, 4) for end in alarm_interval(999, 0.01)]
        [0.0048, 0.017]
    """
    count = math.floor(rate * (images + 1) + 1e-9)
    rates = beta(count, images + 1 - count)
    return float(rates.ppf(0.025)), float(rates.ppf(0.975))


def smallest_rate(images: int) -> float:
    """Smallest rate of false alarms that validation images allow, to two digits, rounded up.

    Example:
        >>> smallest_rate(60), smallest_rate(99)
        (0.017, 0.01)
    """
    rate = 1 / (images + 1)
    step = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return float(f"{math.ceil(rate / step - 1e-9) * step:.2g}")


def _check(valid: pd.DataFrame, train: pd.DataFrame, classes: tuple[str, ...], rate: float) -> None:
    if missing := sorted(set(classes) - set(valid["label"])):
        raise InputError(
            f"there are no validation images of the class {missing[0]!r}; a calibration needs "
            "every class"
        )
    least = math.ceil(1 / rate - 1e-9) - 1
    if len(valid) < least:
        raise InputError(
            f"a false alarm rate of {rate:g} needs {least:,} validation images, and there are "
            f"{len(valid):,}; add some, or set the rate to {smallest_rate(len(valid)):g} or more"
        )
    if len(train) < 2 or train["label"].nunique() == len(train):
        raise InputError(
            f"there are {len(train)} training images; distances need several of each class"
        )


def _codes(table: pd.DataFrame, classes: tuple[str, ...]) -> NDArray[np.int64]:
    place = {name: index for index, name in enumerate(classes)}
    return np.asarray(table["label"].map(place), np.int64)


def _distances(gaussians: Gaussians, of: Observations) -> dict[DistanceKind, NDArray[np.float64]]:
    """Distances by kind."""
    found = {"mahalanobis": gaussians.distances(of.features), "energy": of.energies}
    return {kind: np.asarray(found[kind], np.float64) for kind in KINDS}


def _spread(count: int, size: int) -> NDArray[np.int64]:
    """Places of at most `size` of `count` items, at equal distances."""
    return np.unique(np.linspace(0, count - 1, min(size, count)).round().astype(np.int64))
