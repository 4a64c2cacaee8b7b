"""Specification of a model, as stored in `model.json`, with the pooling of its maps to logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from preceptor.config.settings import Fit, ImageFormat
from preceptor.config.training import PoolKind
from preceptor.version import __version__

Head = Literal["softmax", "sigmoid"]
CamKind = Literal["auto", "cam", "gradcam"]
CamSource = Literal["head_input", "cyborg"]


@dataclass(frozen=True)
class Pool:
    """Pooling of the cells of a map to one value.

    The mean over the grid is that of usual networks; it hides a mark that is small compared with
    the image, which the others do not.

    Args:
        kind: mean; top (mean of the highest cells); or lse (log-sum-exp, (1 ÷ r) · log of the mean
            of exp(r x), between the mean and the maximum).
        top: Highest cells of `top`: a share of all cells in (0, 1], rounded up, or a number ≥ 1.
        sharpness: r > 0 of `lse`.

    Reference:
        lse: P. O. Pinheiro, R. Collobert, "From Image-level to Pixel-level Labeling with
        Convolutional Networks", CVPR 2015.

    Example:
        >>> Pool("top", top=2)(torch.tensor([[[1.0, 5.0], [3.0, 0.0]]]))
        tensor([4.])
    """

    kind: PoolKind = "mean"
    top: float = 0.1
    sharpness: float = 4.0

    def __call__(self, maps: Tensor) -> Tensor:
        """Pool (..., h, w) maps to (...) values."""
        cells = maps.flatten(-2)
        if self.kind == "mean":
            return cells.mean(-1)
        if self.kind == "lse":
            total = torch.logsumexp(self.sharpness * cells, -1)
            return (total - math.log(cells.shape[-1])) / self.sharpness
        return cells.topk(self.count(cells.shape[-1]), -1).values.mean(-1)

    def count(self, cells: int) -> int:
        """Number of highest cells among `cells`."""
        return math.ceil(self.top * cells) if isinstance(self.top, float) else self.top

    @property
    def words(self) -> str:
        """Description for messages."""
        if self.kind == "top":
            how = f"{self.top:.0%}" if isinstance(self.top, float) else f"{self.top}"
            return f"mean of the highest {how} of the cells"
        return "mean of all cells" if self.kind == "mean" else f"log-sum-exp, r {self.sharpness:g}"


def pooled_logits(maps: Tensor, bias: Tensor, pool: Pool, positive: int) -> Tensor:
    """Logits from pooled maps instead of pooled features.

    For two classes, the decision map d of the positive class is pooled: z = pool(d) + its bias, and
    the logits are (−z/2, z/2). For more classes, the CAM of each class minus the mean CAM over the
    classes is pooled. In both cases, a change of all CAMs by the same map changes nothing. With
    the mean, the probabilities are those of the linear head.

    Args:
        maps: (B, C, h, w) CAMs.
        bias: (C,) bias of the head.
        pool: Pooling.
        positive: Index of the positive class, for two classes.

    Returns:
        (B, C).
    """
    if maps.shape[1] == 2:
        other = 1 - positive
        z = pool(maps[:, positive] - maps[:, other]) + bias[positive] - bias[other]
        return torch.stack((-z, z) if positive == 1 else (z, -z), 1) / 2
    return pool(maps - maps.mean(1, keepdim=True)) + bias


@dataclass(frozen=True)
class ModuleParts:
    """Parts of a network from outside timm that its saliency maps are computed from.

    Args:
        head: Dotted name of the linear classifier; "" = none.
        features: Dotted name of the module whose output is the features.
        layout: Layout of this output: nchw, nhwc or tokens.
        prefix: Number of tokens before those of the image.
        in_place: Whether the network changes its input in place, and needs a copy.
    """

    head: str
    features: str
    layout: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix: int = 0
    in_place: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """Specification of a model: architecture, classes and input format, as in `model.json`.

    Args:
        backbone: Name of the timm backbone, or of the network from outside timm.
        classes: Class names in logit order.
        positive: Class whose probability is the score (two classes), or None.
        in_chans: Number of input channels, 1 or 3.
        input_size: Side of the square input in pixels.
        mean, std: Mean and std of the input in [0, 1], one value per channel.
        fit: Method that makes images square: squash, letterbox or crop.
        backbone_args: Further arguments of the backbone.
        head: softmax (one logit per class) or sigmoid (one logit for two classes).
        cam: Kind of saliency map: "cam" (exact on this backbone), or "gradcam".
        cam_source: Features of the CAM: head_input, or cyborg (the layers of the authors' code).
        tap: Features of Grad-CAM: "" (input of the head), or "last_block" (input of the last
            transformer block, for heads that use a class token only).
        pool: Pooling of the CAMs to logits.
        module: Parts of a network from outside timm; None = a timm backbone.
        factory: Function that creates this network, as package.module:function; "" = the network
            was given as an object.
        thresholds: Decision thresholds by rule, fixed on validation.
        version: Version of the library that built the model.
    """

    backbone: str
    classes: tuple[str, ...]
    positive: str | None
    in_chans: int
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "squash"
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    head: Head = "softmax"
    cam: str = "cam"
    cam_source: CamSource = "head_input"
    tap: str = ""
    pool: Pool = field(default_factory=Pool)
    module: ModuleParts | None = None
    factory: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    version: str = __version__

    @property
    def image_format(self) -> ImageFormat:
        """Input format of the trained model."""
        return ImageFormat(self.input_size, self.fit, self.in_chans)

    @property
    def positive_index(self) -> int:
        """Index of the positive class; of the last class without one."""
        return len(self.classes) - 1 if self.positive is None else self.classes.index(self.positive)
