"""Where a backbone's features are taken, and how they are brought to (B, Ch, h, w) and back."""

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
    """How a backbone lays its features out.

    Args:
        kind: nchw, nhwc, or tokens (B, N, Ch).
        prefix: Tokens before those of the image (class token, registers).
        grid: (h, w) of the tokens.
    """

    kind: Literal["nchw", "nhwc", "tokens"]
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.prefix + self.grid[0] * self.grid[1]

    def to_grid(self, raw: Tensor) -> Tensor:
        """The backbone's features as (B, Ch, h, w)."""
        if self.kind == "nchw":
            return raw
        if self.kind == "nhwc":
            return raw.permute(0, 3, 1, 2)
        tokens = raw[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(len(raw), raw.shape[2], *self.grid)

    def from_grid(self, features: Tensor, raw: Tensor) -> Tensor:
        """Features (B, Ch, h, w) as the backbone lays them out; prefix tokens are those of `raw`.

        The head computed from the result is a function of `features`, whatever the layout.
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
    """The layout of features that a timm network gave for a square image.

    Raises:
        InputError: None that is known.
    """
    if not isinstance(raw, Tensor):
        raise InputError(f"its features are a {type(raw).__name__} of several, not one tensor")
    if raw.ndim == 4:
        return Layout("nhwc" if getattr(network, "output_fmt", "NCHW") == "NHWC" else "nchw")
    if raw.ndim == 3:
        # Not every family says how many of its tokens are not of the image.
        for prefix in dict.fromkeys([getattr(network, "num_prefix_tokens", 0), 0, 1, 2]):
            count = raw.shape[1] - prefix
            side = math.isqrt(max(count, 0))
            if side > 1 and side * side == count:
                return Layout("tokens", prefix, (side, side))
    raise InputError(f"its features are {tuple(raw.shape)}, and no grid of image places in them")


def last_block(network: nn.Module) -> nn.Module | None:
    """The last transformer block before what makes the logits, where a network has `blocks`."""
    blocks = getattr(network, "blocks", None)
    if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks):
        return blocks[-1]
    return None


def allow_second_derivatives(network: nn.Module, tap: str) -> None:
    """Switch fused attention off where Grad-CAM differentiates: it has no second derivative.

    That is what follows the blocks, with `tap` last_block the last of them too; where there are
    no blocks, the last part.
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
    """Hand `keep` the features that the authors' released CYBORG code makes its maps of.

    ResNet: the last convolution of the last block, before its batch norm, the residual and ReLU.
    DenseNet: the last batch norm, before its ReLU. Xception: conv4, before batch norm and ReLU.
    Inception-v3: Mixed_7c. Only in the last do these add up to the logits.

    Raises:
        InputError: Another family.
    """
    if isinstance(network, ResNet):
        block = list(network.get_submodule("layer4").children())[-1]
        last = block.get_submodule("conv3" if hasattr(block, "conv3") else "conv2")
        last.register_forward_hook(partial(_hand_output, keep))
    elif isinstance(network, DenseNet):
        activation: Any = network.get_submodule("features.norm5.act")
        if hasattr(activation, "inplace"):
            activation.inplace = False  # it would overwrite what is kept
        activation.register_forward_pre_hook(partial(_hand_input, keep))
    elif isinstance(network, Xception):
        network.conv4.register_forward_hook(partial(_hand_output, keep))
    elif isinstance(network, InceptionV3):
        network.Mixed_7c.register_forward_hook(partial(_hand_output, keep))
    else:
        raise InputError(
            "cam_source: cyborg is known for ResNet, DenseNet, Xception and Inception-v3; set "
            "cam_source: head_input"
        )


# Not lambdas: a copied model (copy.deepcopy) would go on handing its features to the first one.
def _hand_output(keep: Callable[[Tensor], None], _: nn.Module, __: Any, out: Tensor) -> None:
    keep(out)


def _hand_input(keep: Callable[[Tensor], None], _: nn.Module, arguments: tuple[Any, ...]) -> None:
    keep(arguments[0])
