"""Network of a model folder, computed by torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.config.training import Precision
from preceptor.errors import InputError
from preceptor.inference.predict import to_device
from preceptor.models.guided_model import GuidedModel, GuidedOutput, ModelOutput
from preceptor.models.model_folder import load_model
from preceptor.models.precision import autocast
from preceptor.predictor.inference_probe import probe_batch_size
from preceptor.predictor.model_info import MapKind, ModelInfo
from preceptor.predictor.network import NetworkOutput, joined_outputs
from preceptor.runtime.memory import out_of_memory


class TorchNetwork:
    """Trained model on a device.

    The memory layout is channels-last, which is the faster one in nearly all cases.

    Args:
        model: Trained model; its weights are moved to the device.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        precision: Precision; thresholds are fixed in 32-true.
        batch_size: Number of images per call; None = chosen by a short probe when it is needed.

    Raises:
        InputError: There is no such device.
    """

    def __init__(
        self,
        model: GuidedModel,
        *,
        device: str = "auto",
        precision: Precision = "32-true",
        batch_size: int | None = None,
    ) -> None:
        self._device = find_device(device)
        model = model.eval().to(self._device)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._precision: Precision = precision
        self._batch_size = batch_size
        self.info = info_of(model)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        device: str = "auto",
        precision: Precision = "32-true",
        batch_size: int | None = None,
    ) -> TorchNetwork:
        """Network of a model folder; see the class for the arguments, `load_model` for errors."""
        return cls(load_model(folder), device=device, precision=precision, batch_size=batch_size)

    @property
    def batch_size(self) -> int:
        """Number of images per call at which the network is fast."""
        return self._batch_size or self._probed_batch_size

    @cached_property
    def _probed_batch_size(self) -> int:
        def compute(images: NDArray[np.uint8]) -> None:
            try:
                self._forward(images, maps=True, map_classes=None)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                raise MemoryError(str(error)) from error

        return probe_batch_size(compute, self.info.image_format, gpu=self._device.type != "cpu")

    def check_maps(self, map_class: int | None) -> None:
        """Accept all classes, see `Network.check_maps`."""

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Output for a batch, see `Network.__call__`; halved if memory runs out."""
        try:
            return self._forward(images, maps=maps, map_classes=map_classes)
        except (MemoryError, RuntimeError) as error:
            if len(images) == 1 or not out_of_memory(error):
                raise
        half = len(images) // 2  # here the error has been freed, with the tensors in its frames
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        parts = [
            self(
                images[part],
                maps=maps,
                map_classes=None if map_classes is None else map_classes[part],
            )
            for part in (slice(half), slice(half, None))
        ]
        return joined_outputs(parts)

    def _forward(
        self, images: NDArray[np.uint8], *, maps: bool, map_classes: NDArray[np.int64] | None
    ) -> NetworkOutput:
        model, positive = self._model, self.info.positive_index
        with torch.no_grad(), autocast(self._device, self._precision):
            # The pixels lie channels-last already.
            batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
            prepared = model.preprocess(to_device(batch, self._device, channels_last=True))
            if not maps:
                out: ModelOutput = model(prepared)
                return _output(out.logits, out.features, None)
            if map_classes is not None:
                classes = torch.from_numpy(map_classes).to(self._device)
            elif positive is not None:
                classes = torch.full((len(images),), positive, device=self._device)
            guided: GuidedOutput = model(
                prepared,
                "predicted" if map_classes is None and positive is None else classes,
                decision=True,
            )
            return _output(guided.logits, guided.features, guided.saliency)


def _output(
    logits: torch.Tensor, features: torch.Tensor, saliency: torch.Tensor | None
) -> NetworkOutput:
    logits = logits.float()
    return NetworkOutput(
        _as_array(logits.softmax(1)),
        None if saliency is None else _as_array(saliency.float()),
        _as_array(features.float().mean((2, 3))),
        _as_array(-logits.logsumexp(1)),
    )


def info_of(model: GuidedModel) -> ModelInfo:
    """Description of a model."""
    spec = model.spec
    kind: MapKind = "cam" if spec.cam == "cam" else "gradcam"
    return ModelInfo(
        classes=spec.classes,
        positive=spec.positive,
        image_format=spec.image_format,
        mean=spec.mean,
        std=spec.std,
        backbone=spec.backbone,
        map_kind=kind,
        thresholds=dict(spec.thresholds),
        version=spec.version,
    )


def find_device(name: str) -> torch.device:
    """Device of a name.

    Args:
        name: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is unknown; write auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"device {name!r} is not supported; write auto, cpu, cuda or cuda:N")
    if (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def _as_array(values: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().cpu().numpy()
    return found
