"""Static quantization of ONNX graphs to 8-bit integers, calibrated on images.

Quantized are convolutions and products with constant weights that the features depend on. The
classifier, the product of the map and the derivative of Grad-CAM stay in float32, since the map is
normalized and shows errors that the probabilities hide.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from preceptor.model_export.check_images import CheckImages
from preceptor.model_export.traced import quiet

CALIBRATION_IMAGES = 128
"""Largest number of images from which the ranges of values are taken."""
_QUANTIZED = ("Conv", "Gemm", "MatMul")


def quantised(graph: onnx.ModelProto, images: CheckImages, input_type: str) -> onnx.ModelProto:
    """Quantized copy of an ONNX graph: 8-bit weights by channel, 8-bit features.

    Args:
        graph: ONNX graph in float32; it is not changed.
        images: Images of the calibration, of which `CALIBRATION_IMAGES` are drawn.
        input_type: Type of the input of the graph, uint8 or float32.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        given, prepared, out = (Path(folder, f"{name}.onnx") for name in ("float", "fused", "int8"))
        onnx.save(graph, given)
        # Fuses batch norms into convolutions, so that they are quantized together.
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        fused = onnx.load(prepared)
        quantize_static(
            fused,
            out,
            _Batches(images.sample(CALIBRATION_IMAGES), input_type),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_quantize=quantisable(fused),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(out)


def quantisable(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes that are quantized: products that the logits depend on but the last."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    constants = {one.name for one in graph.graph.initializer}
    found: list[str] = []
    # From the probabilities back; a value is seen once, with or without a product after it.
    waiting = [("probabilities", False)]
    seen: set[tuple[str, bool]] = set()
    last: set[str] = set()
    while waiting:
        value, after = waiting.pop()
        node = makers.get(value)
        if node is None or (value, after) in seen:
            continue
        seen.add((value, after))
        if node.op_type in _QUANTIZED:
            if not after:
                last.add(node.name)
            elif node.input[1] in constants and node.name not in found:
                found.append(node.name)
            after = True
        waiting += [(name, after) for name in node.input]
    return [name for name in found if name not in last]


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Batches of the calibration, as ONNX Runtime reads them."""

    def __init__(self, images: CheckImages, dtype: str) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = images.batches()
        self._dtype = dtype

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch.astype(self._dtype, copy=False)}
