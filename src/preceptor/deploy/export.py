"""Export of a trained model to ONNX, which is kept only if its outputs are the model's.

The file has pre-processing, decision and map. The class activation map is a product of features and
weights, and is traced as it stands. Grad-CAM needs a derivative, which ONNX lacks.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import normalized
from preceptor.deploy.network import TorchNetwork, calibrated, find_calibration, info_of, steps_at
from preceptor.deploy.prediction import (
    INFO_KEY,
    Calibration,
    find_threshold,
)
from preceptor.errors import InputError, PreceptorError, reason
from preceptor.models.build import load_model
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.maps import normalize
from preceptor.utils.files import replacing
from preceptor.utils.process import out_of_memory
from preceptor.version import __version__

SUFFIXES = (".onnx",)

TOLERANCE = 1e-4
"""Largest difference of a probability or of a cell of a map, in float32."""
# Min-max normalization divides by the spread of a map, and enlarges rounding errors of its values
# by their size ÷ the spread. A map whose spread is below this share of its largest value is
# compared on this share as its scale.
_LEAST_SPREAD = 0.01
# A number that is no channel, class or token count: sizes that are equal by chance would be traced
# as one.
_TRACED_BATCH = 5
_CHECKED = 64  # images of the check
_BATCH = 16
_LARGEST_FILE = 2**31 - 2**20  # of a protocol buffer
_OPSET = 18  # ONNX Runtime 1.14 and later read it.
_COARSE = 8  # cells of the smooth part of synthetic images along each side


class ExportError(PreceptorError):
    """An export differs from its model by more than the limit."""


class DeployedModel(nn.Module):
    """Copy of a trained model on the CPU whose input is images (B, in_chans, H, W) as decoded.

    Its outputs are named by `outputs`. The map is the decision map of the positive class, or of the
    most probable class if there is none.
    """

    def __init__(
        self,
        model: GuidedModel,
        threshold: float | None,
        *,
        maps: bool = True,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.threshold, self.maps = threshold, maps
        self.positive = None if model.spec.positive is None else model.spec.positive_index
        self.calibration = calibration
        thresholds = model.spec.thresholds.values()
        self.steps = [] if calibration is None else steps_at(calibration, thresholds)
        self.outputs = ["probabilities", "score", "decision", *(["map", "raw_map"] if maps else [])]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs named by `outputs`."""
        mean, std = self.model.get_buffer("mean"), self.model.get_buffer("std")
        pixels = (image.to(torch.float32) / 255 - mean) / std
        maps: tuple[Tensor, ...] = ()
        if not self.maps:
            out = self.model(pixels)
        else:
            classes: Any = "predicted"
            if self.positive is not None:
                classes = torch.full((image.shape[0],), self.positive, dtype=torch.int64)
            out = self.model(pixels, classes, decision=True)
            maps = (normalize(out.saliency), out.saliency)
        return *self._decided(out.logits), *maps

    def _decided(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        probabilities = logits.softmax(1)
        if self.calibration is not None:
            probabilities = calibrated(probabilities, self.calibration, self.positive, self.steps)
        if self.positive is None:
            return probabilities, probabilities.amax(1), probabilities.argmax(1)
        score = probabilities[:, self.positive]
        if self.threshold is None:
            return probabilities, score, probabilities.argmax(1)
        own = torch.arange(probabilities.shape[1]) == self.positive
        other = probabilities.masked_fill(own, -1.0).argmax(1)
        # In float64: a threshold may lie between two neighboring float32 scores.
        above = score.to(torch.float64) >= self.threshold
        return probabilities, score, torch.where(above, self.positive, other)


def trace(model: DeployedModel) -> ExportedProgram:
    """Graph of a deployed model with a dynamic batch size."""
    images = torch.from_numpy(synthetic_images(model.model.spec.image_format, _TRACED_BATCH))
    with _refusing(model), torch.no_grad():
        model(images)  # layouts of features are determined outside of tracing
        return torch.export.export(model, (images,), dynamic_shapes=({0: Dim.DYNAMIC},))


@contextmanager
def _refusing(model: DeployedModel) -> Iterator[None]:
    """Context whose errors are refusals of a model."""
    try:
        with _quiet():
            yield
    except PreceptorError:
        raise
    except Exception as error:  # torch raises many types for what it cannot trace or write
        if out_of_memory(error):  # it says nothing of the model
            raise
        what = f"{model.model.spec.backbone} cannot be exported: {reason(error, 200)}"
        raise InputError(what) from error


def onnx_content(
    program: ExportedProgram, model: DeployedModel, metadata: Mapping[str, str]
) -> bytes:
    """Content of the ONNX file of a traced model, with texts by key as its metadata."""
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size > _LARGEST_FILE:
        raise InputError(
            f"{model.model.spec.backbone}: its weights have {size / 2**30:.1f} GiB, and an ONNX "
            "file holds 2 GiB; use the model folder"
        )
    with _refusing(model), torch.no_grad():
        found = torch.onnx.export(
            program,
            input_names=["image"],
            output_names=model.outputs,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert found is not None
        graph: Any = found.model_proto
    _tidy(graph)
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=value)
    graph.producer_name, graph.producer_version = "preceptor", __version__
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _tidy(graph: Any) -> None:
    """Remove what the exporter noted on each node (lines of source code), and name the sizes."""
    del graph.graph.value_info[:]
    for part in [*graph.graph.node, *(node for one in graph.functions for node in one.node)]:
        del part.metadata_props[:]
        part.doc_string = ""
    for value in [*graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del value.metadata_props[:]
    for one in [graph.graph, *graph.functions]:
        del one.metadata_props[:]
    sizes = {"image": ("batch", "channels", "height", "width"), "probabilities": ("batch", "class")}
    for value in [*graph.graph.input, *graph.graph.output]:
        names = sizes.get(value.name, ("batch", "map_height", "map_width"))
        for size, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if size.dim_param:
                size.dim_param = name


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the messages of torch and onnxscript about their own insides."""
    names = ("torch", "onnxscript", "onnx_ir")
    levels = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)


class Outputs(NamedTuple):
    """Outputs for a batch."""

    probabilities: NDArray[np.float32]  # (B, C)
    map: NDArray[np.float32] | None = None  # (B, h, w) normalized; None without maps
    raw_map: NDArray[np.float32] | None = None  # (B, h, w)


Computation = Callable[[NDArray[np.uint8]], Outputs]


def synthetic_images(form: ImageFormat, count: int = _CHECKED) -> NDArray[np.uint8]:
    """(count, channels, side, side) smooth random images with noise from a fixed seed."""
    generator = np.random.default_rng(0)
    coarse = generator.random((count, form.channels, _COARSE, _COARSE), np.float32)
    noise = generator.random((count, form.channels, form.size, form.size), np.float32)
    cells = np.arange(form.size) * _COARSE // form.size
    mixed = 0.8 * coarse[:, :, cells][..., cells] + 0.2 * noise
    images: NDArray[np.uint8] = np.rint(255 * mixed).astype(np.uint8)
    return images


@dataclass(frozen=True)
class Parity:
    """Largest differences over the images of a check."""

    images: int
    probabilities: float
    maps: float | None  # of a cell of a normalized map; None without maps

    @property
    def within_tolerance(self) -> bool:
        """Whether all differences are within the tolerance of float32; False for NaN."""
        return self.probabilities <= TOLERANCE and (self.maps is None or self.maps <= TOLERANCE)


def export_model(
    folder: Path,
    out: Path,
    *,
    threshold: str | float | None = None,
    maps: bool = True,
) -> tuple[Parity, float | None]:
    """Export a model folder; if it differs from the model, ExportError, and nothing is written.

    For `threshold` see `find_threshold`; it decides the output `decision`, and is returned.
    """
    model = load_model(folder)
    if maps and model.spec.cam == "gradcam":
        raise InputError(f"{folder}: its map is Grad-CAM, which ONNX lacks; add --no-map")
    calibration = find_calibration(folder)
    info = info_of(model, calibration)
    fixed = find_threshold(threshold, info)
    deployed = DeployedModel(model, fixed, maps=maps, calibration=calibration)
    itself = model_outputs(model, maps=maps, calibration=calibration)
    metadata = {INFO_KEY: (info if maps else replace(info, map_kind="none")).to_json()}
    content = onnx_content(trace(deployed), deployed, metadata)
    checked = synthetic_images(model.spec.image_format)
    parity = measure(itself, onnx_outputs(content), checked)
    if not parity.within_tolerance:
        of_map = "" if parity.maps is None else f", of a map {parity.maps:.1e}"
        raise ExportError(
            f"the export differs from the model: the largest difference of a probability is "
            f"{parity.probabilities:.1e}{of_map} over {parity.images:,} images, above "
            f"{TOLERANCE:g}; nothing was written"
        )
    with replacing(out) as partial:
        partial.write_bytes(content)
    return parity, fixed


def onnx_outputs(content: bytes) -> Computation:
    """Outputs of the content of an ONNX file, computed by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        values = session.run(None, {"image": batch})
        return Outputs(**{n: v for n, v in zip(names, values, strict=True) if n in Outputs._fields})

    return compute


def model_outputs(
    model: GuidedModel, *, maps: bool, calibration: Calibration | None = None
) -> Computation:
    """Outputs of a trained model on the CPU, as `preceptor.load` computes them from its folder."""
    network = TorchNetwork(model, calibration, device="cpu")

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        out = network(batch.transpose(0, 2, 3, 1), maps=maps)
        raw = out.raw_map
        shown = None if raw is None else normalized(raw)
        return Outputs(out.probabilities, shown, raw)

    return compute


def measure(model: Computation, export: Computation, images: NDArray[np.uint8]) -> Parity:
    """Compare two computations on the same batches: one of a single image, then larger ones."""
    probabilities: list[float] = []
    maps: list[float] = []
    for start, stop in pairwise([0, *range(1, len(images), _BATCH), len(images)]):
        batch = images[start:stop]
        one, two = model(batch), export(batch)
        probabilities.append(float(np.abs(one.probabilities - two.probabilities).max()))
        if one.map is not None and two.map is not None:
            maps.append(map_difference(one, two))
    # numpy's maximum is NaN if one is
    return Parity(len(images), float(np.max(probabilities)), float(np.max(maps)) if maps else None)


def map_difference(one: Outputs, two: Outputs) -> float:
    """Largest difference of a cell of two normalized maps, see `Parity`."""
    assert one.map is not None and two.map is not None  # noqa: PT018
    assert one.raw_map is not None and two.raw_map is not None  # noqa: PT018
    if one.map.shape != two.map.shape:
        return math.inf
    low, high = one.raw_map.min((1, 2)), one.raw_map.max((1, 2))
    largest = np.maximum(np.abs(low), np.abs(high))
    flat = high - low < _LEAST_SPREAD * largest
    gap = np.abs(one.map - two.map).max((1, 2))
    scale = np.maximum(_LEAST_SPREAD * largest, np.finfo(np.float32).tiny)
    raw = np.abs(one.raw_map - two.raw_map).max((1, 2)) / scale
    return float(np.where(flat, raw, gap).max())
