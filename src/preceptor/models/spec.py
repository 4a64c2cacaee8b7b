"""Specification of a model, as stored in `model.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from preceptor.config.image_format import Fit, ImageFormat
from preceptor.models.feature_layout import CamSource
from preceptor.models.pooling import Pool
from preceptor.version import __version__

Head = Literal["softmax", "sigmoid"]


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
