"""Tracing of a deployed model to a graph of tensor operations, maps included.

The class activation map is a product of features and weights, and is traced as it stands. Grad-CAM
needs the derivative of the logits with respect to the features. It is traced with the operations
of the derivative, which are then part of the graph in closed form: no automatic differentiation
remains. This works for every head whose operations have a derivative that is made of operations
that the target knows; for others, the export of the map is refused.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from preceptor.errors import InputError, PreceptorError, reason
from preceptor.model_export.check_images import synthetic_images
from preceptor.model_export.deployed_model import DeployedModel
from preceptor.runtime.memory import out_of_memory

# A number that is no channel, class or token count: sizes that are equal by chance would be traced
# as one.
_BATCH = 5
# Multiples of all strides, and not square: a graph that was traced with equal sides may take them
# for one number.
LARGER = (64, 128)
"""Further rows and columns of the images of another size than the model's own."""

_aten = torch.ops.aten


def trace(model: DeployedModel, dtype: torch.dtype, *, dynamic_size: bool) -> ExportedProgram:
    """Graph of a deployed model with a dynamic batch size.

    Args:
        model: Deployed model.
        dtype: Type of the input, uint8 or float32.
        dynamic_size: Whether the height and width of the input are dynamic as well; see
            `takes_other_sizes`.

    Raises:
        InputError: The model, or its map alone, cannot be traced.
    """
    images = example_images(model, _BATCH, dtype)
    form: dict[int, Any] = {0: Dim.DYNAMIC}
    if dynamic_size:
        form |= {2: Dim.AUTO, 3: Dim.AUTO}
    with quiet(), torch.no_grad():
        try:
            model(images)  # layouts of features are determined outside of tracing
            return torch.export.export(
                _with_derivative(model, images), (images,), dynamic_shapes=(form,)
            )
        except PreceptorError:
            raise
        except Exception as error:  # torch raises many types for what cannot be traced
            if out_of_memory(error):  # it says nothing of the model
                raise
            raise refusal(model, error) from error


def refusal(model: DeployedModel, error: Exception) -> InputError:
    """Message for a model that cannot be exported; it names the map where that is the cause."""
    spec = model.model.spec
    what = f"{spec.backbone} cannot be exported: {reason(error, 200)}"
    if model.maps and spec.cam == "gradcam":
        what += "; its map is Grad-CAM, whose derivative may be the cause: try without the map"
    return InputError(what)


def example_images(
    model: DeployedModel, count: int, dtype: torch.dtype, larger: tuple[int, int] = (0, 0)
) -> Tensor:
    """(count, in_chans, height, width) synthetic images.

    Args:
        model: Deployed model.
        count: Number of images.
        dtype: Type of the images; their values are from 0 to 255 in any case.
        larger: Pixels by which height and width exceed the input size of the model.
    """
    images = synthetic_images(model.model.spec.image_format, count, larger)
    return torch.from_numpy(images.read(images.positions)).to(dtype)


def takes_other_sizes(model: DeployedModel, dtype: torch.dtype) -> bool:
    """Whether a model computes images of another size than its own.

    The number of cells is part of other poolings than the mean, and is traced as a constant.
    """
    if model.model.spec.pool.kind != "mean":
        return False
    try:
        with quiet(), torch.no_grad():
            model(example_images(model, 1, dtype, larger=LARGER))
    except Exception as error:  # the networks raise many types for a wrong size
        if out_of_memory(error):
            raise
        return False
    return True


def _with_derivative(model: DeployedModel, images: Tensor) -> nn.Module:
    """The model itself, or for Grad-CAM its graph with the operations of the derivative."""
    if not model.maps or model.model.spec.cam != "gradcam":
        return model
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    known = {operation: rule for operation, rule in table.items() if "backward" in str(operation)}
    known[_aten.convolution_backward.default] = _convolution_slope
    traced: nn.Module = make_fx(
        model,
        tracing_mode="symbolic",
        decomposition_table=known,
        _allow_non_fake_inputs=True,  # the weights
    )(images)
    return traced


def _convolution_slope(
    slope: Tensor,
    features: Tensor,
    weight: Tensor,
    _: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    __: list[int],
    groups: int,
    wanted: list[bool],
) -> Any:
    """Derivative of a convolution with respect to its input: a transposed convolution."""
    if wanted[1] or wanted[2] or transposed or any(one != 1 for one in stride):
        return NotImplemented
    found = _aten.convolution(
        slope, weight, None, stride, padding, dilation, True, [0] * len(stride), groups
    )
    return found, None, None


@contextmanager
def quiet() -> Iterator[None]:
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
