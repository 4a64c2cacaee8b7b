"""Network of a model folder on torch, with its calibration."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from preceptor.config.files import validated
from preceptor.deploy.prediction import Calibration, ModelInfo, NetworkOutput
from preceptor.errors import InputError
from preceptor.inference.predict import to_device
from preceptor.models.build import load_model
from preceptor.models.guided_model import GuidedModel, GuidedOutput, ModelOutput
from preceptor.utils.process import out_of_memory
from preceptor.utils.results import CHECKSUMS, files_that_differ, read_checksums

CALIBRATION = "calibration.json"
"""File of a calibration in a model folder."""
SMALLEST = float(np.finfo(np.float32).tiny)
"""Smallest probability in logarithms."""

_TWO = np.float32(2)


class Step(NamedTuple):
    """Threshold of the uncalibrated score at which a calibration keeps decisions.

    `below` is the highest calibrated score below it, and `above` the lowest at or above it: two
    neighboring float32 numbers.
    """

    threshold: float
    below: float
    above: float

    @property
    def calibrated(self) -> float:
        """Threshold of the calibrated score: in the middle, where no score is."""
        return (self.below + self.above) / 2


def calibrated(
    probabilities: Tensor,
    calibration: Calibration,
    positive: int | None,
    steps: Iterable[Step] = (),
) -> Tensor:
    """Calibrated probabilities by the formulas of `Calibration`; exported graphs contain them."""
    given = probabilities.double()
    if positive is None:
        return _logarithm(given).div(calibration.temperature).softmax(1).float()
    own = torch.arange(given.shape[1]) == positive
    others = given.masked_fill(own, 0.0)
    rest = others.sum(1, keepdim=True)  # 1 − s without the rounding of a score close to 1
    score = given[:, positive : positive + 1]
    changed = _calibrated_score(score, rest, calibration)
    for step in steps:
        above, below = changed.clamp(min=step.above), changed.clamp(max=step.below)
        changed = torch.where(score >= step.threshold, above, below)
    even = torch.where(own, 0.0, 1.0 / (given.shape[1] - 1)).double()
    shares = torch.where(rest > 0, others / torch.where(rest > 0, rest, 1.0), even)
    return torch.where(own, changed, shares * (1 - changed)).float()


def _calibrated_score(score: Tensor, rest: Tensor, calibration: Calibration) -> Tensor:
    """(B, 1) calibrated scores of scores and the sums of the other probabilities."""
    odds = _logarithm(score) - _logarithm(rest)
    return (odds / calibration.temperature).sigmoid()


def _logarithm(values: Tensor) -> Tensor:
    return values.clamp(min=SMALLEST).log()


def steps_at(calibration: Calibration, thresholds: Iterable[float]) -> list[Step]:
    """Thresholds of the uncalibrated score in [0, 1] with the calibrated ones, increasing.

    Several scores may have the same calibrated one in float32. Calibrated scores are limited: one
    is above the calibrated threshold if and only if the score was at or above the threshold.
    """
    wanted = sorted({float(one) for one in thresholds if 0 <= one <= 1})
    scores = torch.tensor(wanted, dtype=torch.float64)[:, None]
    values = list(_calibrated_score(scores, 1 - scores, calibration)[:, 0].float().numpy())
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


def find_calibration(folder: Path) -> Calibration | None:
    """Calibration of a model folder; None if it has none, InputError if its file was changed."""
    checksum = read_checksums(folder).get(CALIBRATION)
    # A calibration that has been removed leaves its checksum, and is missed when it is read.
    if checksum is None and not (folder / CALIBRATION).exists():
        return None
    if files_that_differ(folder, {CALIBRATION: checksum or ""}):
        raise InputError(
            f"{folder}: {CALIBRATION} does not match its checksum in {CHECKSUMS}: it was changed, "
            "damaged or added after the model was calibrated; copy the folder again"
        )
    content = (folder / CALIBRATION).read_bytes()
    return validated(TypeAdapter(Calibration), content, f"{folder / CALIBRATION}")


class TorchNetwork:
    """Trained model on a device, with its calibration if it has one."""

    def __init__(
        self,
        model: GuidedModel,
        calibration: Calibration | None = None,
        *,
        device: str = "auto",
    ) -> None:
        self._device = find_device(device)
        model = model.eval().to(self._device)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._lock = Lock()  # a pass keeps its state on the model
        self.info = info_of(model, calibration)
        thresholds = model.spec.thresholds.values()
        self._steps = [] if calibration is None else steps_at(calibration, thresholds)

    @classmethod
    def open(cls, folder: Path, *, device: str = "auto") -> TorchNetwork:
        """Network of a model folder; see `load_model` and `find_calibration` for errors."""
        model = load_model(folder)
        return cls(model, find_calibration(folder), device=device)

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Output for (B, side, side, channels) images in the model's format, not normalized.

        The classes (B,) of the maps are by default the positive one, or the most probable one.
        """
        try:
            out = self._forward(images, maps=maps, map_classes=map_classes)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            what = f"no memory for {len(images)} images in one pass; lower the batch size"
            raise InputError(f"{self.info.backbone} on {self._device}: {what}") from error
        if self.info.calibration is None:
            return out
        plain = torch.from_numpy(out.probabilities)
        changed = calibrated(plain, self.info.calibration, self.info.positive_index, self._steps)
        return out._replace(probabilities=changed.numpy())

    def _forward(
        self, images: NDArray[np.uint8], *, maps: bool, map_classes: NDArray[np.int64] | None
    ) -> NetworkOutput:
        model, positive = self._model, self.info.positive_index
        with self._lock, torch.no_grad():
            # The pixels lie channels-last already.
            batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
            prepared = model.preprocess(to_device(batch, self._device, channels_last=True))
            if not maps:
                out: ModelOutput = model(prepared)
                return _output(out.logits, None)
            classes: Tensor | Literal["predicted"] = "predicted"
            if map_classes is not None:
                classes = torch.from_numpy(map_classes).to(self._device)
            elif positive is not None:
                classes = torch.full((len(images),), positive, device=self._device)
            guided: GuidedOutput = model(prepared, classes, decision=True)
            return _output(guided.logits, guided.saliency)


def _output(logits: Tensor, saliency: Tensor | None) -> NetworkOutput:
    return NetworkOutput(
        logits.float().softmax(1).cpu().numpy(),
        None if saliency is None else saliency.detach().float().cpu().numpy(),
    )


def info_of(model: GuidedModel, calibration: Calibration | None = None) -> ModelInfo:
    """Description of a model, whose thresholds are calibrated as the probabilities."""
    spec = model.spec
    info = ModelInfo(
        classes=tuple(spec.classes),
        positive=spec.positive,
        image_format=spec.image_format,
        mean=tuple(spec.mean),
        std=tuple(spec.std),
        backbone=spec.backbone,
        map_kind="cam" if spec.cam == "cam" else "gradcam",
        thresholds=dict(spec.thresholds),
        version=spec.version,
    )
    return info if calibration is None else calibrated_info(info, calibration)


def calibrated_info(info: ModelInfo, calibration: Calibration) -> ModelInfo:
    """Description of a calibrated model; thresholds outside of [0, 1] stay as they are."""
    steps = steps_at(calibration, info.thresholds.values())
    known = {step.threshold: step.calibrated for step in steps}
    thresholds = {rule: known.get(value, value) for rule, value in info.thresholds.items()}
    return replace(info, thresholds=thresholds, calibration=calibration)


def find_device(name: str) -> torch.device:
    """Device of a name: auto (a GPU if there is one), cpu, cuda or cuda:N; else InputError."""
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with suppress(RuntimeError):
        device = torch.device(name)
        if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < gpus):
            return device
    known = f"write auto, cpu, cuda or cuda:N; this machine has {gpus} GPUs"
    raise InputError(f"device {name!r}: {known}")
