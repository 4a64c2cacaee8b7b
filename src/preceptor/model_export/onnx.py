"""ONNX files of deployed models, with the description of the model in their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from preceptor.errors import InputError
from preceptor.model_export.deployed_model import DeployedModel
from preceptor.model_export.parity import Computation, Outputs
from preceptor.model_export.traced import quiet, refusal
from preceptor.runtime.memory import out_of_memory
from preceptor.version import __version__

# A protocol buffer has at most 2 GiB.
_LARGEST = 2**31 - 2**20
# ONNX Runtime 1.14 and later read it.
_OPSET = 18


def to_onnx(program: ExportedProgram, model: DeployedModel) -> onnx.ModelProto:
    """ONNX graph of a traced model, without metadata.

    Args:
        program: The traced model.
        model: The deployed model that was traced.

    Raises:
        InputError: The weights are too large for one file, or an operation is unknown to ONNX.
    """
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size > _LARGEST:
        raise InputError(
            f"{model.model.spec.backbone}: its weights have {size / 2**30:.1f} GiB, and an ONNX "
            "file holds 2 GiB; export to torch_export"
        )
    with quiet(), torch.no_grad():
        try:
            found = torch.onnx.export(
                program,
                input_names=["image"],
                output_names=list(model.outputs),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
            assert found is not None
            graph: onnx.ModelProto = found.model_proto
        except Exception as error:  # the exporter raises many types for unknown operations
            if out_of_memory(error):
                raise
            raise refusal(model, error) from error
    _tidy(graph)
    return graph


def write_onnx(graph: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an ONNX file.

    Args:
        graph: ONNX graph; its metadata is replaced.
        path: Path of the file.
        metadata: Texts by key.
    """
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, dict(metadata))
    graph.producer_name, graph.producer_version = "preceptor", __version__
    path.write_bytes(graph.SerializeToString(deterministic=True))


def graph_outputs(content: bytes) -> Computation:
    """Outputs of an ONNX file, computed by ONNX Runtime on the CPU.

    Args:
        content: Content of the file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        found = session.run(None, {"image": batch.astype(dtype, copy=False)})
        return Outputs.of(dict(zip(names, found, strict=True)))

    return compute


def _tidy(graph: onnx.ModelProto) -> None:
    """Remove what the exporter noted on each node (lines of source code), and name the sizes."""
    del graph.graph.value_info[:]
    for part in [*graph.graph.node, *(node for one in graph.functions for node in one.node)]:
        del part.metadata_props[:]
        part.doc_string = ""
    for value in [*graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    for one in graph.functions:
        del one.metadata_props[:]
    sizes = {"image": ("batch", "channels", "height", "width"), "probabilities": ("batch", "class")}
    for value in [*graph.graph.input, *graph.graph.output]:
        names = sizes.get(value.name, ("batch", "map_height", "map_width"))
        for size, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if size.dim_param:
                size.dim_param = name
