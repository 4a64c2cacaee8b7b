"""Network of an exported ONNX file, computed by ONNX Runtime; imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from preceptor.deploy.prediction import CARD_KEY, INFO_KEY, ModelInfo, NetworkOutput
from preceptor.errors import InputError, reason

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxNetwork:
    """Exported model on a device."""

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        self._path = path
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(
                f"device {device!r} is not available to ONNX Runtime; write auto, cpu or cuda"
            )
        available = _CUDA in onnxruntime.get_available_providers()
        provider = _CUDA if available and device != "cpu" else _CPU
        try:
            self._session = session_of(path.read_bytes(), provider)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        except Exception as error:  # ONNX Runtime raises many types
            raise InputError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it: "
                f"{reason(error, 200)}"
            ) from error
        # Without the libraries of CUDA, ONNX Runtime computes on the CPU and says nothing.
        if device == "cuda" and _CUDA not in self._session.get_providers():
            raise InputError(
                "device 'cuda': ONNX Runtime cannot use the GPU; install onnxruntime-gpu and the "
                "versions of CUDA and cuDNN that it was built for, or write cpu"
            )
        metadata = self._session.get_modelmeta().custom_metadata_map
        if INFO_KEY not in metadata:
            raise InputError(
                f"{path}: not a file of preceptor export; export the model with preceptor export"
            )
        try:
            self.info = ModelInfo.from_json(metadata[INFO_KEY])
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        self.card: str = metadata.get(CARD_KEY, "")

    def check_maps(self, map_class: int | None) -> None:
        """Check that maps of a class can be computed, see `Network.check_maps`."""
        info = self.info
        known = len(info.classes) == 2 or map_class is None or map_class == info.positive_index
        if info.map_kind != "none" and not known:
            has, others = "the most probable class", "of a given class"
            if info.positive is not None:
                has, others = repr(info.positive), "of another class"
            raise InputError(
                f"{self._path}: the exported file has the maps of {has} only; maps {others} need "
                "the model folder; use it, or leave out the maps"
            )

    def __call__(
        self,
        images: NDArray[np.uint8],
        *,
        maps: bool = True,
        map_classes: NDArray[np.int64] | None = None,
    ) -> NetworkOutput:
        """Output for a batch, see `Network.__call__`; maps of the other of two are negatives."""
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        names = ["probabilities"]
        if maps and self.info.map_kind != "none":
            names.append("raw_map")
        outputs = dict(zip(names, self._session.run(names, {"image": batch}), strict=True))
        probabilities, raw_map = outputs["probabilities"], outputs.get("raw_map")
        if raw_map is not None and map_classes is not None:
            positive = self.info.positive_index
            own = probabilities.argmax(1) if positive is None else positive
            other = map_classes != own
            for wanted in map_classes[other]:
                self.check_maps(int(wanted))
            raw_map = np.where(other[:, None, None], -raw_map, raw_map)
        return NetworkOutput(probabilities, raw_map)


def session_of(content: bytes | str, provider: str = _CPU) -> onnxruntime.InferenceSession:
    """Session of ONNX Runtime, without messages on standard error.

    `content` is that of a file, or its path, with which its weights may lie in another file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    return onnxruntime.InferenceSession(content, sess_options=options, providers=[provider])
