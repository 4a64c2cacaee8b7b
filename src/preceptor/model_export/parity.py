"""Difference between an exported model and the model that it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.errors import PreceptorError
from preceptor.evaluation.auc import auc, log_odds, macro_auc
from preceptor.model_export.check_images import CheckImages
from preceptor.models.guided_model import GuidedModel, GuidedOutput, ModelOutput
from preceptor.predictor.prediction import decide
from preceptor.predictor.reference import Reference
from preceptor.runtime.modes import evaluating
from preceptor.saliency.normalise import normalise

TOLERANCE = 1e-4
"""Largest difference of a probability or of a cell of a map, in float32."""
# Min-max normalization divides by the spread of a map, and enlarges rounding errors of its values
# by their size ÷ the spread. A map whose spread is below this share of its largest value is
# compared on this share as its scale.
_LEAST_SPREAD = 0.01


class ExportError(PreceptorError):
    """An export differs from its model by more than the limit."""


class Outputs(NamedTuple):
    """Outputs for a batch.

    Args:
        probabilities: (B, C).
        map: (B, h, w) normalized decision maps; None without maps.
        raw_map: (B, h, w) maps without normalization; None without maps.
        distance: (B,) distances from the training images; None without a reference.
    """

    probabilities: NDArray[np.float32]
    map: NDArray[np.float32] | None
    raw_map: NDArray[np.float32] | None
    distance: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, found: Mapping[str, NDArray[Any]]) -> Outputs:
        """Outputs from those of a deployed model by name."""
        return cls(
            found["probabilities"], found.get("map"), found.get("raw_map"), found.get("distance")
        )


Computation = Callable[[NDArray[np.uint8]], Outputs]


@dataclass(frozen=True)
class Parity:
    """Largest differences over the images of a check.

    Args:
        images: Number of images.
        probabilities: Largest difference of a probability.
        maps: Largest difference of a cell of a normalized map; None without maps.
        most_probable: Number of images whose most probable class differs.
        aucs: AUC of the model and of the export by validation set; sets without an AUC (one class
            only) are left out.
        distances: Largest relative difference of a distance from the training images; None without
            a reference.
        decisions: Number of images whose decision at the threshold differs; None without a
            threshold.
    """

    images: int
    probabilities: float
    maps: float | None
    most_probable: int
    aucs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    distances: float | None = None
    decisions: int | None = None

    @property
    def within_tolerance(self) -> bool:
        """Whether all differences are within the tolerance of float32; False for NaN."""
        found = (self.probabilities, self.maps, self.distances)
        return all(one <= TOLERANCE for one in found if one is not None)


def measure(
    model: Computation,
    export: Computation,
    images: CheckImages,
    positive: int | None,
    threshold: float | None = None,
) -> Parity:
    """Compare two computations on the same batches.

    Args:
        model: Outputs of the model itself.
        export: Outputs of the export.
        images: Images of the check.
        positive: Index of the positive class, for the AUC; None = macro-averaged AUC.
        threshold: Threshold of the decision; None = decisions are not compared.
    """
    first, second = [], []
    map_gap: float | None = None
    distance_gap: float | None = None
    for batch in images.batches():
        one, two = model(batch), export(batch)
        first.append(one.probabilities)
        second.append(two.probabilities)
        if one.map is not None and two.map is not None:
            map_gap = _larger(map_gap, map_difference(one, two))
        if one.distance is not None and two.distance is not None:
            gaps = np.abs(one.distance - two.distance) / np.maximum(np.abs(one.distance), 1)
            distance_gap = _larger(distance_gap, float(gaps.max()))
    before, after = np.concatenate(first), np.concatenate(second)
    decisions = None
    if positive is not None and threshold is not None:
        one_way, other = (decide(found, positive, threshold) for found in (before, after))
        decisions = int((one_way != other).sum())
    return Parity(
        images=len(images),
        probabilities=float(np.abs(before - after).max()),
        maps=map_gap,
        distances=distance_gap,
        most_probable=int((before.argmax(1) != after.argmax(1)).sum()),
        aucs=_aucs(before, after, images, positive),
        decisions=decisions,
    )


def map_difference(one: Outputs, two: Outputs) -> float:
    """Largest difference of a cell of the normalized maps, see `Parity`.

    Args:
        one: Outputs of the model.
        two: Outputs of the export.
    """
    assert one.map is not None
    assert two.map is not None
    assert one.raw_map is not None
    assert two.raw_map is not None
    if one.map.shape != two.map.shape:
        return math.inf
    low, high = one.raw_map.min((1, 2)), one.raw_map.max((1, 2))
    largest = np.maximum(np.abs(low), np.abs(high))
    flat = high - low < _LEAST_SPREAD * largest
    normalized = np.abs(one.map - two.map).max((1, 2))
    scale = np.maximum(_LEAST_SPREAD * largest, np.finfo(np.float32).tiny)
    raw = np.abs(one.raw_map - two.raw_map).max((1, 2)) / scale
    return float(np.where(flat, raw, normalized).max())


def model_outputs(
    model: GuidedModel, *, maps: bool, reference: Reference | None = None
) -> Computation:
    """Outputs of a trained model on the CPU, as `preceptor.load` computes them from its folder."""
    positive = None if model.spec.positive is None else model.spec.positive_index
    calibration = None if reference is None else reference.calibration

    def distances(out: ModelOutput | GuidedOutput) -> NDArray[np.float64] | None:
        if reference is None:
            return None
        features, energies = out.features.mean((2, 3)), -out.logits.logsumexp(1)
        return reference.distances_of(features.numpy(), energies.numpy())

    def probabilities(logits: torch.Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = logits.softmax(1).numpy()
        if calibration is None:
            return found
        return calibration(found, positive, model.spec.thresholds.values())

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        with evaluating(model), torch.no_grad():
            images = model.preprocess(torch.from_numpy(batch))
            if not maps:
                bare = model(images)
                return Outputs(probabilities(bare.logits), None, None, distances(bare))
            wanted = "predicted" if positive is None else torch.full((len(batch),), positive)
            out = model(images, wanted, decision=True)
            return Outputs(
                probabilities(out.logits),
                normalise(out.saliency).numpy(),
                out.saliency.numpy(),
                distances(out),
            )

    return compute


def _larger(one: float | None, two: float) -> float:
    """The larger of two numbers; NaN if one of them is NaN."""
    return two if one is None or math.isnan(two) or two > one else one


def _by_set(
    images: CheckImages,
) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.int64]]]:
    """Name, rows and labels of each validation set; none for images without labels."""
    if images.labels is None or images.sets is None:
        return
    for name in dict.fromkeys(images.sets.tolist()):
        own = images.sets == name
        yield str(name), own, images.labels[own]


def _aucs(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    images: CheckImages,
    positive: int | None,
) -> dict[str, tuple[float, float]]:
    """AUC before and after the export by validation set."""
    found: dict[str, tuple[float, float]] = {}
    sides = log_odds(before), log_odds(after)
    for name, own, labels in _by_set(images):
        pair = [
            macro_auc(labels, values[own])
            if positive is None
            else auc(labels == positive, values[own, positive])
            for values in sides
        ]
        if all(map(math.isfinite, pair)):
            found[name] = (float(pair[0]), float(pair[1]))
    return found
