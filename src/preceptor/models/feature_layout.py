"""Layouts of backbone features, their conversion to (B, Ch, h, w), and taps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from timm.models.densenet import DenseNet
from timm.models.inception_v3 import InceptionV3
from timm.models.resnet import ResNet
from timm.models.xception import Xception
from torch import Tensor, nn

from preceptor.errors import InputError

CamSource = Literal["head_input", "cyborg"]


@dataclass(frozen=True)
class Layout:
    """Layout of the features of a backbone.

    Args:
        kind: nchw, nhwc, or tokens (B, N, Ch).
        prefix: Number of tokens before those of the image (class token, registers).
        grid: Size (h, w) of the grid of image tokens.
    """

    kind: Literal["nchw", "nhwc", "tokens"]
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)

    @property
    def tokens(self) -> int:
        """Number of all tokens."""
        return self.prefix + self.grid[0] * self.grid[1]

    def to_grid(self, raw: Tensor) -> Tensor:
        """Convert features of the backbone to (B, Ch, h, w)."""
        if self.kind == "nchw":
            return raw
        if self.kind == "nhwc":
            return raw.permute(0, 3, 1, 2)
        tokens = raw[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(raw.shape[0], raw.shape[2], *self.grid)

    def from_grid(self, features: Tensor, raw: Tensor) -> Tensor:
        """Convert features (B, Ch, h, w) to the backbone's layout, with the prefix tokens of `raw`.

        The output of the head is then a function of `features` for every layout.
        """
        if self.kind == "nchw":
            return features
        if self.kind == "nhwc":
            return features.permute(0, 2, 3, 1)
        tokens = features.flatten(2).transpose(1, 2)
        if self.prefix == 0:
            return tokens
        return torch.cat([raw[:, : self.prefix], tokens], 1)


def layout_of(network: nn.Module, raw: object) -> Layout:
    """Layout of the features of a timm network for a square image.

    Raises:
        InputError: The layout is unknown.
    """
    if not isinstance(raw, Tensor):
        raise InputError(f"the features are a {type(raw).__name__} of tensors, not one tensor")
    if raw.ndim == 4:
        return Layout("nhwc" if getattr(network, "output_fmt", "NCHW") == "NHWC" else "nchw")
    if raw.ndim == 3:
        # Not all families report the number of prefix tokens.
        for prefix in dict.fromkeys([getattr(network, "num_prefix_tokens", 0), 0, 1, 2]):
            count = raw.shape[1] - prefix
            side = math.isqrt(max(count, 0))
            if side > 1 and side * side == count:
                return Layout("tokens", prefix, (side, side))
    raise InputError(f"the features have shape {tuple(raw.shape)}, without a spatial grid")


def last_block(network: nn.Module) -> nn.Module | None:
    """Last transformer block before the head, if the network has `blocks`."""
    blocks = getattr(network, "blocks", None)
    if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks):
        return blocks[-1]
    return None


def allow_second_derivatives(network: nn.Module, tap: str) -> None:
    """Switch off fused attention in the layers that Grad-CAM differentiates twice.

    Fused attention has no second derivative. The layers are those after the blocks, with `tap`
    last_block also the last block; in networks without blocks, the last module.
    """
    names = [name for name, _ in network.named_children()]
    after = names.index("blocks") + 1 if last_block(network) is not None else len(names) - 1
    parts = list(network.children())[after:]
    block = last_block(network) if tap == "last_block" else None
    part: Any
    for module in parts if block is None else [block, *parts]:
        for part in module.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = False


def cyborg_taps(network: nn.Module, keep: Callable[[Tensor], None]) -> None:
    """Register a hook that passes the features used by the authors' CYBORG code to `keep`.

    ResNet: the last convolution of the last block, before its batch norm, the residual and ReLU.
    DenseNet: the last batch norm, before its ReLU. Xception: conv4, before batch norm and ReLU.
    Inception-v3: Mixed_7c. Only the maps of the last add up to the logits.

    Raises:
        InputError: The network belongs to another family.
    """
    if isinstance(network, ResNet):
        block = list(network.get_submodule("layer4").children())[-1]
        last = block.get_submodule("conv3" if hasattr(block, "conv3") else "conv2")
        last.register_forward_hook(partial(_hand_output, keep))
    elif isinstance(network, DenseNet):
        activation: Any = network.get_submodule("features.norm5.act")
        if hasattr(activation, "inplace"):
            activation.inplace = False  # an in-place operation would overwrite the kept tensor
        activation.register_forward_pre_hook(partial(_hand_input, keep))
    elif isinstance(network, Xception):
        network.conv4.register_forward_hook(partial(_hand_output, keep))
    elif isinstance(network, InceptionV3):
        network.Mixed_7c.register_forward_hook(partial(_hand_output, keep))
    else:
        raise InputError(
            "cam_source: cyborg is defined for ResNet, DenseNet, Xception and Inception-v3; set "
            "cam_source: head_input"
        )


# Not lambdas: the hooks of a copied model (copy.deepcopy) would refer to the original.
def _hand_output(keep: Callable[[Tensor], None], _: nn.Module, __: Any, out: Tensor) -> None:
    keep(out)


def _hand_input(keep: Callable[[Tensor], None], _: nn.Module, arguments: tuple[Any, ...]) -> None:
    keep(arguments[0])
