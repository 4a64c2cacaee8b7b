"""Specification of a model, as stored in `model.json`, with the pooling of its maps to logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from preceptor.config.settings import Amount, Fit, ImageFormat
from preceptor.config.training import PoolKind
from preceptor.version import __version__

Head = Literal["softmax", "sigmoid"]
CamKind = Literal["auto", "cam", "gradcam"]
CamSource = Literal["head_input", "cyborg"]
Tap = Literal["", "last_block"]


# Classes of a mapper of several classes: it learns where the marks are, whatever the class.
MARKS = ("no mark", "mark")

# Of what `model.json` holds: everything is checked when it is read.
_CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, config=_CHECKED)
class Pool:
    """Pooling of the cells of a map to one value; the mean hides a mark that is small.

    lse is log-sum-exp, (1 ÷ r) · log of the mean of exp(r x): P. O. Pinheiro, R. Collobert, "From
    Image-level to Pixel-level Labeling with Convolutional Networks", CVPR 2015.
    """

    kind: PoolKind = "mean"  # mean, top (mean of the highest cells) or lse
    top: Amount = 0.1  # highest cells: a share of all, rounded up, or a number
    sharpness: Annotated[float, Field(gt=0)] = 4.0  # r

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
        return math.ceil(round(self.top * cells, 9)) if isinstance(self.top, float) else self.top

    @property
    def words(self) -> str:
        """Description for messages."""
        if self.kind == "top":
            how = f"{self.top:.0%}" if isinstance(self.top, float) else f"{self.top}"
            return f"mean of the highest {how} of the cells"
        return "mean of all cells" if self.kind == "mean" else f"log-sum-exp, r {self.sharpness:g}"


def pooled_logits(maps: Tensor, bias: Tensor, pool: Pool, positive: int) -> Tensor:
    """(B, C) logits from pooled maps (B, C, h, w) and the bias (C,), not from pooled features.

    For two classes, the decision map d of the positive class is pooled: z = pool(d) + its bias, and
    the logits are (−z/2, z/2). For more, the CAM of each class minus the mean CAM is pooled. In
    both cases a change of all CAMs by the same map changes nothing.
    """
    if maps.shape[1] == 2:
        other = 1 - positive
        z = pool(maps[:, positive] - maps[:, other]) + bias[positive] - bias[other]
        return torch.stack((-z, z) if positive == 1 else (z, -z), 1) / 2
    return pool(maps - maps.mean(1, keepdim=True)) + bias


@dataclass(frozen=True, config=_CHECKED)
class ModuleParts:
    """Parts of a network from outside timm that its saliency maps are computed from."""

    head: str  # dotted name of the linear classifier; "" = none
    features: str  # dotted name of the module whose output is the features
    layout: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix: int = 0  # number of tokens before those of the image
    in_place: bool = False  # whether the network changes its input in place, and needs a copy


@dataclass(frozen=True, config=_CHECKED)
class ModelSpec:
    """Specification of a model: architecture, classes and input format, as in `model.json`."""

    backbone: str
    classes: tuple[str, ...]  # class names in logit order
    positive: str | None  # class whose probability is the score (two classes), or None
    in_chans: int
    input_size: int  # side of the square input in pixels
    mean: tuple[float, ...]  # of the input in [0, 1], one value per channel
    std: tuple[float, ...]
    fit: Fit = "squash"  # method that makes images square: squash, letterbox or crop
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    head: Head = "softmax"  # softmax (one logit per class) or sigmoid (one logit for two classes)
    cam: Literal["cam", "gradcam"] = "cam"  # kind of saliency map; cam is exact on this backbone
    cam_source: CamSource = "head_input"  # features of the CAM; cyborg: of the authors' code
    tap: Tap = ""  # features of Grad-CAM: input of the head, or of this block
    pool: Pool = field(default_factory=Pool)
    module: ModuleParts | None = None
    factory: str = ""  # function that creates this network, as package.module:function
    thresholds: Mapping[str, float] = field(default_factory=dict)  # by rule, fixed on validation
    version: str = __version__

    @property
    def image_format(self) -> ImageFormat:
        """Input format of the trained model."""
        return ImageFormat(self.input_size, self.fit, self.in_chans)

    @property
    def image_classes(self) -> tuple[str, ...] | None:
        """Classes of the images; None for a mapper of several classes, which has `MARKS`."""
        return None if self.classes == MARKS else self.classes

    @property
    def positive_index(self) -> int:
        """Index of the positive class; of the last class without one."""
        return len(self.classes) - 1 if self.positive is None else self.classes.index(self.positive)
