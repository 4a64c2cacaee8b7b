"""Network of an exported ONNX file, computed by ONNX Runtime; imports no torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from preceptor.errors import InputError, reason
from preceptor.predictor.inference_probe import probe_batch_size
from preceptor.predictor.model_info import CARD_KEY, EXPORT_KEY, INFO_KEY, ModelInfo
from preceptor.predictor.network import NetworkOutput
from preceptor.predictor.threshold import with_export_threshold

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxNetwork:
    """Exported model on a device.

    Args:
        path: File of `preceptor export --to onnx`.
        device: auto (a GPU if ONNX Runtime has one), cpu or cuda.
        threads: Number of threads of a computation; None = one per core.
        batch_size: Number of images per call; None = chosen by a short probe when it is needed.

    Raises:
        InputError: The file is of another program, this version of ONNX Runtime cannot load it, or
            there is no such device.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._path = path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised as well
        options.intra_op_num_threads = threads or 0
        self._cuda = _uses_cuda(device)
        provider = _PROVIDERS["cuda" if self._cuda else "cpu"]
        try:
            self._session = onnxruntime.InferenceSession(
                content, sess_options=options, providers=[provider]
            )
        except Exception as error:  # ONNX Runtime raises many types
            raise InputError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it: "
                f"{reason(error, 200)}"
            ) from error
        # Without the libraries of CUDA, ONNX Runtime computes on the CPU and says nothing.
        if self._cuda and provider not in self._session.get_providers():
            if device == "cuda":
                raise InputError(
                    "device 'cuda': ONNX Runtime cannot use the GPU; install the versions of CUDA "
                    "and cuDNN that it was built for, or write cpu"
                )
            self._cuda = False
        metadata = self._session.get_modelmeta().custom_metadata_map
        if INFO_KEY not in metadata:
            raise InputError(
                f"{path}: not a file of preceptor export; export the model with preceptor export"
            )
        try:
            info = ModelInfo.from_json(metadata[INFO_KEY])
            self.info = with_export_threshold(info, metadata.get(EXPORT_KEY, ""))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        self.card: str = metadata.get(CARD_KEY, "")
        self._batch_size = batch_size
        (image,) = self._session.get_inputs()
        self._type = np.uint8 if image.type == "tensor(uint8)" else np.float32

    @property
    def batch_size(self) -> int:
        """Number of images per call at which the network is fast."""
        return self._batch_size or self._probed_batch_size

    @cached_property
    def _probed_batch_size(self) -> int:
        return probe_batch_size(self, self.info.image_format, gpu=self._cuda)

    def check_maps(self, map_class: int | None) -> None:
        """Check that maps of a class can be computed, see `Network.check_maps`."""
        info = self.info
        known = len(info.classes) == 2 or map_class is None or map_class == info.positive_index
        if info.map_kind != "none" and not known:
            raise self._no_maps()

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Output for a batch, see `Network.__call__`.

        A file has the maps of one class per image. Those of the other of two classes are their
        negatives; for more classes, no others are available.
        """
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(self._type, copy=False)
        names = ["probabilities"]
        if maps and self.info.map_kind != "none":
            names.append("raw_map")
        if self.info.false_alarms is not None:
            names += ["distance", "unfamiliar_share"]
        found = dict(zip(names, self._session.run(names, {"image": batch}), strict=True))
        probabilities, raw_map = found["probabilities"], found.get("raw_map")
        if raw_map is not None and map_classes is not None:
            raw_map = self._of_classes(raw_map, probabilities, map_classes)
        return NetworkOutput(
            probabilities,
            raw_map,
            distances=found.get("distance"),
            shares=found.get("unfamiliar_share"),
        )

    def _of_classes(
        self,
        raw_map: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        wanted: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """(B, h, w) maps of the wanted classes from those of the file's."""
        positive = self.info.positive_index
        own = probabilities.argmax(1) if positive is None else np.full(len(wanted), positive)
        other = own != wanted
        if not other.any():
            return raw_map
        if len(self.info.classes) != 2:
            raise self._no_maps()
        return np.where(other[:, None, None], -raw_map, raw_map)

    def _no_maps(self) -> InputError:
        """Error for maps of other classes than those of the file."""
        if self.info.positive is None:
            has, others = "the most probable class", "of a given class"
        else:
            has, others = repr(self.info.positive), "of another class"
        return InputError(
            f"{self._path}: the exported file has the maps of {has} only; maps {others} need the "
            "model folder; use it, or leave out the maps"
        )


def _uses_cuda(device: str) -> bool:
    """Whether a GPU is used.

    Raises:
        InputError: There is no such device.
    """
    if device not in ("auto", *_PROVIDERS):
        raise InputError(
            f"device {device!r} is not available to ONNX Runtime; write auto, cpu or cuda"
        )
    available = _PROVIDERS["cuda"] in onnxruntime.get_available_providers()
    if device == "cuda" and not available:
        raise InputError(
            "device 'cuda': this ONNX Runtime has no GPU support; install onnxruntime-gpu, or "
            "write cpu"
        )
    return available and device != "cpu"
