"""Graph of a trained model with its pre-processing, decision and map, as ONNX or torch package.

The class activation map is a product of features and weights, and is traced as it stands. Grad-CAM
needs the derivative of the logits with respect to the features. It is traced with the operations
of the derivative, which are then part of the graph in closed form: no automatic differentiation
remains. This works for every head whose operations have a derivative that is made of operations
that the target knows; for others, the export of the map is refused.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from preceptor.config.settings import ImageFormat
from preceptor.deploy.network import Reference, calibrated, steps_at
from preceptor.errors import InputError, PreceptorError, reason
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.maps import normalize
from preceptor.utils.memory import out_of_memory
from preceptor.version import __version__

# A number that is no channel, class or token count: sizes that are equal by chance would be traced
# as one.
_BATCH = 5
# Multiples of all strides, and not square: a graph that was traced with equal sides may take them
# for one number.
LARGER = (64, 128)
"""Further rows and columns of the images of another size than the model's own."""
# A protocol buffer has at most 2 GiB.
_LARGEST = 2**31 - 2**20
# ONNX Runtime 1.14 and later read it.
_OPSET = 18
# Synthetic images: cells of the smooth part along each side.
_COARSE = 8

_aten = torch.ops.aten


class DeployedModel(nn.Module):
    """Copy of a trained model on the CPU whose input is images as decoded.

    The map is the decision map of the positive class, or without one of the most probable class.

    Args:
        model: Trained model; it is not changed.
        threshold: Threshold of the score; None = the decision is the most probable class.
        maps: Whether maps are computed.
        reference: Reference of the model, with the calibration of its probabilities; None = it has
            none.
    """

    known: Tensor
    whitening: Tensor
    centers: Tensor

    def __init__(
        self,
        model: GuidedModel,
        threshold: float | None,
        *,
        maps: bool = True,
        reference: Reference | None = None,
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        _replace_global_pools(self.model)
        self.threshold, self.maps = threshold, maps
        self.positive = None if model.spec.positive is None else model.spec.positive_index
        self.calibration = None if reference is None else reference.calibration
        thresholds = model.spec.thresholds.values()
        self.steps = [] if self.calibration is None else steps_at(self.calibration, thresholds)
        self.outputs = ["probabilities", "score", "decision", *(["map", "raw_map"] if maps else [])]
        self.by_features = False
        if reference is not None:
            self.outputs += ["distance", "unfamiliar_share"]
            self.register_buffer("known", torch.from_numpy(np.sort(reference.distances)))
            if reference.gaussians is not None:
                self.by_features = True
                whitening = torch.from_numpy(reference.gaussians.whitening).double()
                means = torch.from_numpy(reference.gaussians.means).double()
                self.register_buffer("whitening", whitening)
                self.register_buffer("centers", means @ whitening.T)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs named by `outputs`.

        Args:
            image: (B, in_chans, H, W) uint8, or float32 with values from 0 to 255.

        Returns:
            (B, C) float32 probabilities, (B,) scores and (B,) int64 decisions; with maps (B, h, w)
            maps with and without min-max normalization; with a reference (B,) float64 distances
            from the training images and shares, see `Unfamiliar`.
        """
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
        found: tuple[Tensor, ...] = ()
        if "distance" in self.outputs:
            found = self._distances(out.logits, out.features)
        return *self._decided(out.logits), *maps, *found

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

    def _distances(self, logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and shares by the formulas of `Reference`."""
        if self.by_features:
            own = features.mean((2, 3)).double() @ self.whitening.T
            squares = (own[:, None] - self.centers[None]).square().sum(2)
            distances = squares.amin(1).sqrt()
        else:
            distances = -logits.logsumexp(1).double()
        farther = (self.known[None] >= distances[:, None]).sum(1)
        return distances, (farther + 1).double() / (len(self.known) + 1)


class _GlobalMean(nn.Module):
    """Mean over the grid, (B, Ch, h, w) to (B, Ch, 1, 1)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((-2, -1), keepdim=True)


def _replace_global_pools(model: nn.Module) -> None:
    """Replace adaptive average pooling to one cell by the mean that it is.

    Torch computes it with a change of strides, which neither the derivative in a traced graph nor
    ONNX can express.
    """
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size in (1, (1, 1)):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, _GlobalMean())


def synthetic_pixels(
    form: ImageFormat, count: int = 16, larger: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """(count, channels, height, width) smooth random images with noise, from a fixed seed.

    Args:
        form: Input format.
        count: Number of images.
        larger: Pixels by which height and width exceed the size of the format.
    """
    height, width = (form.size + more for more in larger)
    generator = np.random.default_rng(0)
    coarse = generator.random((count, form.channels, _COARSE, _COARSE), np.float32)
    noise = generator.random((count, form.channels, height, width), np.float32)
    rows, columns = (np.arange(side) * _COARSE // side for side in (height, width))
    mixed = 0.8 * coarse[:, :, rows][..., columns] + 0.2 * noise
    images: NDArray[np.uint8] = np.rint(255 * mixed).astype(np.uint8)
    return images


def _examples(
    model: DeployedModel, count: int, dtype: torch.dtype, larger: tuple[int, int] = (0, 0)
) -> Tensor:
    pixels = synthetic_pixels(model.model.spec.image_format, count, larger)
    return torch.from_numpy(pixels).to(dtype)


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
    images = _examples(model, _BATCH, dtype)
    form: dict[int, Any] = {0: Dim.DYNAMIC}
    if dynamic_size:
        form |= {2: Dim.AUTO, 3: Dim.AUTO}
    with _refusing(model), torch.no_grad():
        model(images)  # layouts of features are determined outside of tracing
        return torch.export.export(
            _with_derivative(model, images), (images,), dynamic_shapes=(form,)
        )


@contextmanager
def _refusing(model: DeployedModel) -> Iterator[None]:
    """Context whose errors are refusals of a model, which name the map where that is the cause."""
    try:
        with quiet():
            yield
    except PreceptorError:
        raise
    except Exception as error:  # torch raises many types for what it cannot trace or write
        if out_of_memory(error):  # it says nothing of the model
            raise
        what = f"{model.model.spec.backbone} cannot be exported: {reason(error, 200)}"
        if model.maps and model.model.spec.cam == "gradcam":
            what += "; its map is Grad-CAM, whose derivative may be the cause: try without the map"
        raise InputError(what) from error


def takes_other_sizes(model: DeployedModel, dtype: torch.dtype) -> bool:
    """Whether a model computes images of another size than its own.

    The number of cells is part of other poolings than the mean, and is traced as a constant.
    """
    if model.model.spec.pool.kind != "mean":
        return False
    try:
        with quiet(), torch.no_grad():
            model(_examples(model, 1, dtype, LARGER))
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


def to_package(
    program: ExportedProgram, model: DeployedModel, metadata: Mapping[str, str]
) -> bytes:
    """Content of a .pt2 package, which C++ programs and AOTInductor read as well.

    Args:
        program: The traced model.
        model: The deployed model that was traced.
        metadata: Texts by key, stored as extra files.

    Raises:
        InputError: Torch has no format for some operations on sizes.
    """
    content = io.BytesIO()  # on a full disk, torch's writer raises an error of many lines
    with _refusing(model):
        torch.export.save(program, content, extra_files=dict(metadata))
    return content.getvalue()


def to_onnx(program: ExportedProgram, model: DeployedModel) -> Any:
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
    return graph


def onnx_content(graph: Any, metadata: Mapping[str, str]) -> bytes:
    """Content of an ONNX file with texts by key as its metadata."""
    del graph.metadata_props[:]
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
