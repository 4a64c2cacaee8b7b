"""Marks of new data beside those of the data on which the gain of the place was measured."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, hypot, log

import numpy as np

from preceptor.data.cache import read_human_maps
from preceptor.data.images import ImageError
from preceptor.data.manifest import Manifest
from preceptor.data.notes import MarkPlaces, mark_places, sampled
from preceptor.errors import InputError
from preceptor.runtime.formatting import interval, number

# Data whose area or overlap differs by more than this factor are not called comparable.
COMPARABLE = 3.0
_LEAST = 1 / 128**2
SMALL = "small residual network, random weights"
"""Network of most studies: test_byobnet of timm."""


@dataclass(frozen=True)
class MeasuredGain:
    """Gain of the Student over the strongest control, measured on one data set.

    The strongest control is the one with the highest AUC on the primary set among those whose maps
    do not know the places, each at its selected α. The gain is the mean difference of this AUC.

    Args:
        data: Name of the data set.
        archive: Folder of the study in benchmarks/evidence.
        marks: Size and places of its marks.
        gain: Mean over the repeats.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        repeats: Number of seeds or draws.
        shortcut: What is known of a shortcut in the training data.
        network: Family of the network and its initial weights.
    """

    data: str
    archive: str
    marks: MarkPlaces
    gain: float
    low: float
    high: float
    repeats: int
    shortcut: str
    network: str = SMALL

    @property
    def condition(self) -> str:
        """Shortcut, network and initial weights of the study."""
        return f"{self.shortcut}; {self.network}"


# The marks are those of benchmarks/evidence/mark_places, the gains those of the archives. Magnetic
# tiles are left out: no row of their study learned the task.
MEASURED = (
    MeasuredGain(
        "forged photographs",
        "forged_evidence",
        MarkPlaces(0.3283, 0.7773),
        -0.0100,
        -0.0665,
        0.0466,
        5,
        "planted shortcut",
    ),
    MeasuredGain(
        "small forged regions",
        "spots_evidence",
        MarkPlaces(0.0793, 0.1772),
        0.0908,
        0.0478,
        0.1337,
        10,
        "planted shortcut",
    ),
    MeasuredGain(
        "small forged regions",
        "spots_densenet",
        MarkPlaces(0.0793, 0.1772),
        0.0881,
        0.0415,
        0.1348,
        5,
        "planted shortcut",
        network="small DenseNet, random weights",
    ),
    MeasuredGain(
        "brain MRI with a planted stamp",
        "brain_mri_planted",
        MarkPlaces(0.0234, 0.1776),
        0.0298,
        -0.0010,
        0.0605,
        8,
        "planted shortcut",
    ),
    MeasuredGain(
        "circuit boards",
        "circuit_boards",
        MarkPlaces(0.0537, 0.0621),
        0.2683,
        0.2343,
        0.3023,
        7,
        "no known shortcut",
    ),
    MeasuredGain(
        "road cracks",
        "road_cracks",
        MarkPlaces(0.1303, 0.1726),
        -0.0028,
        -0.0364,
        0.0309,
        5,
        "no known shortcut",
    ),
    MeasuredGain(
        "brain MRI",
        "brain_mri",
        MarkPlaces(0.0234, 0.1776),
        0.0154,
        -0.0024,
        0.0332,
        8,
        "shortcut without a place",
    ),
    MeasuredGain(
        "brain MRI",
        "brain_mri_imagenet",
        MarkPlaces(0.0234, 0.1776),
        -0.0051,
        -0.0368,
        0.0267,
        5,
        "shortcut without a place",
        network="MobileNetV2, ImageNet weights",
    ),
)


def marks_of_training(manifest: Manifest) -> MarkPlaces | None:
    """Size and places of the human marks of the training images; at most 999 are read.

    Args:
        manifest: Manifest.

    Returns:
        Size and places, or None for fewer than two marks.

    Raises:
        InputError: A map cannot be read.
    """
    rows = sampled(np.flatnonzero(manifest.train_mask & manifest.map_mask))
    try:
        return mark_places(read_human_maps(manifest.table["saliency"].iloc[rows].tolist()))
    except ImageError as error:
        raise InputError(f"{error}; replace the file or empty its cell in saliency") from error


def describe_marks(marks: MarkPlaces) -> list[str]:
    """Lines on the size and places of marks, and on the measured gains of comparable data.

    Args:
        marks: Size and places of the marks.
    """
    lines = [
        f"marks of {marks.count} training images: median area {_percent(marks.area)} of the image; "
        f"the mark of another image covers {_percent(marks.overlap)} of a mark"
    ]
    nearest = min(_distance(marks, one) for one in MEASURED)
    similar = [one for one in MEASURED if _factor(marks, one) <= COMPARABLE]
    if similar:
        which = "comparable marks"
    else:
        similar = [one for one in MEASURED if _distance(marks, one) == nearest]
        factor = min(_factor(marks, one) for one in MEASURED)
        which = f"the nearest marks, which differ in area or overlap by a factor of {factor:.0f}"
    lines.append(f"Student minus the strongest control on data with {which}:")
    lines += [
        f"  {number(one.gain, sign=True)} ({interval(one.low, one.high)}) AUC, {one.repeats} "
        f"repeats: {one.data} ({_percent(one.marks.area)}, {_percent(one.marks.overlap)}; "
        f"{one.condition})"
        for one in sorted(similar, key=lambda one: _distance(marks, one))
    ]
    lines.append(
        "  Size and places of marks alone do not predict a gain: it was found with a shortcut, or "
        "with a task that the network did not learn without maps."
    )
    return lines


def _distance(marks: MarkPlaces, one: MeasuredGain) -> float:
    """Distance of marks from those of measured data, on logarithmic scales."""
    return hypot(*_logs(marks, one.marks))


def _factor(marks: MarkPlaces, one: MeasuredGain) -> float:
    """Factor by which marks differ from those of measured data, in area or in overlap."""
    return exp(max(map(abs, _logs(marks, one.marks))))


def _logs(a: MarkPlaces, b: MarkPlaces) -> tuple[float, float]:
    """Logarithms of the ratios of areas and of overlaps."""
    # Marks that never overlap are as near as those that overlap by one position of 128 × 128.
    return log(a.area / b.area), log(max(a.overlap, _LEAST) / max(b.overlap, _LEAST))


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
