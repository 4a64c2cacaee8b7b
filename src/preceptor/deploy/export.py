"""Export of a model folder to a file, which is kept only if its outputs are those of the model."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.workspace import Workspace
from preceptor.deploy.graph import (
    LARGER,
    DeployedModel,
    onnx_content,
    quiet,
    synthetic_pixels,
    takes_other_sizes,
    to_onnx,
    to_package,
    trace,
)
from preceptor.deploy.model_info import CARD_KEY, EXPORT_KEY, INFO_KEY, find_threshold
from preceptor.deploy.network import Reference, calibrated, find_reference, info_of, steps_at
from preceptor.deploy.prediction import decide
from preceptor.errors import InputError, PreceptorError
from preceptor.metrics.auc import auc, log_odds, macro_auc
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import load_model
from preceptor.saliency.maps import normalize
from preceptor.utils.files import replacing
from preceptor.utils.memory import evaluating, out_of_memory
from preceptor.utils.results import strict_json

Target = Literal["onnx", "torch_export"]
SUFFIXES: dict[str, tuple[str, ...]] = {"onnx": (".onnx",), "torch_export": (".pt2",)}
"""Suffixes of the formats."""
InputType = Literal["uint8", "float32"]

TOLERANCE = 1e-4
"""Largest difference of a probability or of a cell of a map, in float32."""
# Min-max normalization divides by the spread of a map, and enlarges rounding errors of its values
# by their size ÷ the spread. A map whose spread is below this share of its largest value is
# compared on this share as its scale.
_LEAST_SPREAD = 0.01
_BATCH = 16


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
    map: NDArray[np.float32] | None = None
    raw_map: NDArray[np.float32] | None = None
    distance: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, names: Sequence[str], values: Sequence[NDArray[Any]]) -> Outputs:
        """Outputs from those of a deployed model, and their names."""
        named = dict(zip(names, values, strict=True))
        return cls(**{name: named[name] for name in cls._fields if name in named})


Computation = Callable[[NDArray[np.uint8]], Outputs]


@dataclass(frozen=True)
class CheckImages:
    """Images on which an export is checked, in the input format of a model.

    Args:
        read: Function from (B,) positions to (B, channels, side, side) uint8 images.
        positions: (n,) positions of the images.
        labels: (n,) index of the class of each image; None for synthetic images.
        sets: (n,) name of the validation set of each image; None for synthetic images.
    """

    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None
    sets: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self) -> Iterator[NDArray[np.uint8]]:
        """(B, channels, side, side) batches in order: one of a single image, then larger ones."""
        starts = [0, *range(1, len(self), _BATCH), len(self)]
        for start, stop in pairwise(starts):
            yield self.read(self.positions[start:stop])


def validation_images(
    workspace: Workspace,
    form: ImageFormat,
    classes: Sequence[str],
    cache: Literal["memmap", "none"] = "none",
    limit: int = 1000,
) -> CheckImages:
    """At most `limit` images of all validation sets of a manifest, drawn from a fixed seed.

    Raises:
        InputError: There are none, or a label is not among the classes.
    """
    which = workspace.split_rows("val")
    if not len(which):
        raise InputError(
            "the manifest has no validation images; assign some rows to the split val or val-NAME"
        )
    rows = workspace.rows(which, form, classes, cache=cache)

    def read(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = rows.batch(positions).images.numpy()
        return found

    chosen = np.arange(len(which))
    if limit < len(which):
        chosen = np.sort(np.random.default_rng(0).permutation(len(which))[:limit])
    labels = np.asarray(rows.labels, np.int64)
    sets = workspace.manifest.table["split"].to_numpy(object)[which]
    return CheckImages(read, chosen, labels[chosen], sets[chosen])


def synthetic_images(
    form: ImageFormat, count: int = 16, larger: tuple[int, int] = (0, 0)
) -> CheckImages:
    """Smooth random images with noise, see `synthetic_pixels`."""
    images = synthetic_pixels(form, count, larger)
    return CheckImages(lambda positions: images[positions], np.arange(count))


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export.

    Args:
        to: onnx, or torch_export (a .pt2 package).
        threshold: Threshold of the output `decision`: name of a rule, a number, or None = eer if
            the model has it, else the most probable class.
        maps: Whether the file computes maps.
        input_type: Type of the input: uint8, or float32 with values from 0 to 255.
        dynamic_size: Whether height and width of the input may differ from the model's, where the
            backbone allows it.
    """

    to: Target
    threshold: str | float | None = None
    maps: bool = True
    input_type: InputType = "uint8"
    dynamic_size: bool = True


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


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Args:
        parity: Differences from the model.
        dynamic_size: Whether height and width of the input are dynamic.
        threshold: Threshold of the output `decision`; None = the most probable class.
    """

    parity: Parity
    dynamic_size: bool
    threshold: float | None


def export_model(
    folder: Path, out: Path, settings: ExportSettings, images: CheckImages | None = None
) -> Exported:
    """Export a model folder; nothing is written if the export differs from the model.

    Args:
        folder: Model folder.
        out: Path of the new file, which is replaced atomically.
        settings: Settings.
        images: Validation images of the check; None = synthetic images.

    Raises:
        InputError: The folder is no model folder, a setting is invalid, or the model or its map
            cannot be exported.
        ExportError: The export differs from the model by more than the tolerance.
    """
    if settings.to not in get_args(Target):
        raise InputError(f"format {settings.to!r} is unknown; write {', '.join(get_args(Target))}")
    model = load_model(folder)
    reference = find_reference(folder, model.spec.positive is not None)
    info = info_of(model, reference)
    threshold = find_threshold(settings.threshold, info)
    deployed = DeployedModel(model, threshold, maps=settings.maps, reference=reference)
    dtype = torch.uint8 if settings.input_type == "uint8" else torch.float32
    itself = model_outputs(model, maps=settings.maps, reference=reference)
    card = folder / "README.md"
    metadata = {
        INFO_KEY: (info if settings.maps else replace(info, map_kind="none")).to_json(),
        CARD_KEY: card.read_text(encoding="utf-8") if card.is_file() else "",
    }

    def make(*, dynamic_size: bool) -> tuple[bytes, Computation]:
        """Content of a file, and what it computes."""
        values = {
            "threshold": threshold,
            "input_type": settings.input_type,
            "dynamic_size": dynamic_size,
            "precision": "float32",
        }
        described = metadata | {EXPORT_KEY: strict_json(values, indent=None)}
        program = trace(deployed, dtype, dynamic_size=dynamic_size)
        if settings.to == "torch_export":
            content = to_package(program, deployed, described)
            return content, package_outputs(content, dtype, deployed.outputs)
        content = onnx_content(to_onnx(program, deployed), described)
        return content, onnx_outputs(content)

    made = None
    if settings.dynamic_size and takes_other_sizes(deployed, dtype):
        try:
            made = make(dynamic_size=True)
        except InputError:  # the sizes, or the model in any case: the next attempt tells
            made = None
    dynamic = made is not None and _takes_larger(itself, made[1], model)
    content, compute = made if made is not None and dynamic else make(dynamic_size=False)
    checked = synthetic_images(model.spec.image_format) if images is None else images
    parity = measure(itself, compute, checked, deployed.positive, threshold)
    accept(parity)
    with replacing(out) as partial:
        partial.write_bytes(content)
    return Exported(parity, dynamic, threshold)


def _takes_larger(itself: Computation, compute: Computation, model: GuidedModel) -> bool:
    """Whether images of another size give the outputs of the model."""
    images = synthetic_images(model.spec.image_format, 2, LARGER)
    try:
        return measure(itself, compute, images, None).within_tolerance
    except Exception as error:  # the runtimes raise many types for a wrong size
        if out_of_memory(error):
            raise
        return False


def accept(parity: Parity) -> None:
    """Refuse an export whose outputs differ from those of its model."""
    if not parity.within_tolerance:
        maps = "" if parity.maps is None else f", of a map {parity.maps:.1e}"
        gap = parity.distances
        distances = "" if gap is None else f", of a distance (relative) {gap:.1e}"
        raise ExportError(
            f"the export differs from the model: the largest difference of a probability is "
            f"{parity.probabilities:.1e}{maps}{distances} over {parity.images:,} images, above "
            f"{TOLERANCE:g}; nothing was written"
        )


def onnx_outputs(content: bytes) -> Computation:
    """Outputs of the content of an ONNX file, computed by ONNX Runtime on the CPU."""
    from preceptor.deploy.onnx import session_of

    session = session_of(content)
    names = [one.name for one in session.get_outputs()]
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        return Outputs.of(names, session.run(None, {"image": batch.astype(dtype, copy=False)}))

    return compute


def package_outputs(content: bytes, dtype: torch.dtype, names: Sequence[str]) -> Computation:
    """Outputs of the content of a .pt2 package of this library.

    The reader is that of torch; packages of unknown origin must not be loaded with it.

    Args:
        content: Content of the file.
        dtype: Type of its input.
        names: Names of its outputs.
    """
    with quiet():
        module = torch.export.load(io.BytesIO(content)).module()

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        with torch.no_grad():
            found = module(torch.from_numpy(batch).to(dtype))
        return Outputs.of(names, [one.numpy() for one in found])

    return compute


def model_outputs(
    model: GuidedModel, *, maps: bool, reference: Reference | None = None
) -> Computation:
    """Outputs of a trained model on the CPU, as `preceptor.load` computes them from its folder."""
    positive = None if model.spec.positive is None else model.spec.positive_index
    calibration = None if reference is None else reference.calibration
    steps = [] if calibration is None else steps_at(calibration, model.spec.thresholds.values())

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        with evaluating(model), torch.no_grad():
            images = model.preprocess(torch.from_numpy(batch))
            wanted: Any = "predicted"
            if positive is not None:
                wanted = torch.full((len(batch),), positive)
            out = model(images, wanted, decision=True) if maps else model(images)
            probabilities, distance = out.logits.softmax(1), None
            if calibration is not None:
                probabilities = calibrated(probabilities, calibration, positive, steps)
            if reference is not None:
                features, energies = out.features.mean((2, 3)), -out.logits.logsumexp(1)
                distance = reference.distances_of(features.numpy(), energies.numpy())
            if not maps:
                return Outputs(probabilities.numpy(), distance=distance)
            raw = out.saliency
            return Outputs(probabilities.numpy(), normalize(raw).numpy(), raw.numpy(), distance)

    return compute


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
    maps: list[float] = []
    distances: list[float] = []
    for batch in images.batches():
        one, two = model(batch), export(batch)
        first.append(one.probabilities)
        second.append(two.probabilities)
        if one.map is not None and two.map is not None:
            maps.append(map_difference(one, two))
        if one.distance is not None and two.distance is not None:
            gaps = np.abs(one.distance - two.distance) / np.maximum(np.abs(one.distance), 1)
            distances.append(float(gaps.max()))
    before, after = np.concatenate(first), np.concatenate(second)
    decisions = None
    if positive is not None and threshold is not None:
        one_way, other = (decide(found, positive, threshold) for found in (before, after))
        decisions = int((one_way != other).sum())
    return Parity(
        images=len(images),
        probabilities=float(np.abs(before - after).max()),
        maps=float(np.max(maps)) if maps else None,  # NaN if one is
        distances=float(np.max(distances)) if distances else None,
        most_probable=int((before.argmax(1) != after.argmax(1)).sum()),
        aucs=_aucs(before, after, images, positive),
        decisions=decisions,
    )


def map_difference(one: Outputs, two: Outputs) -> float:
    """Largest difference of a cell of two normalized maps, see `Parity`."""
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


def _aucs(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    images: CheckImages,
    positive: int | None,
) -> dict[str, tuple[float, float]]:
    """AUC before and after the export by validation set; sets of one class are left out."""
    if images.labels is None or images.sets is None:
        return {}
    found: dict[str, tuple[float, float]] = {}
    sides = log_odds(before), log_odds(after)
    for name in dict.fromkeys(images.sets.tolist()):
        own = images.sets == name
        labels = images.labels[own]
        first, second = (
            macro_auc(labels, values[own])
            if positive is None
            else auc(labels == positive, values[own, positive])
            for values in sides
        )
        if math.isfinite(first) and math.isfinite(second):
            found[str(name)] = (float(first), float(second))
    return found
