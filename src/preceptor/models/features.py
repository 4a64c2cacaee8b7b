"""Features inside a network: their layout, taps, batch norm, and networks from outside timm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from timm.models.densenet import DenseNet
from timm.models.inception_v3 import InceptionV3
from timm.models.resnet import ResNet
from timm.models.xception import Xception
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from preceptor.errors import InputError
from preceptor.models.spec import ModuleParts


@dataclass(frozen=True)
class Layout:
    """Layout of the features of a backbone."""

    kind: Literal["nchw", "nhwc", "tokens"]
    prefix: int = 0  # number of tokens before those of the image (class token, registers)
    grid: tuple[int, int] = (0, 0)  # size (h, w) of the grid of image tokens

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
        """Inverse of `to_grid` for features (B, Ch, h, w), with the prefix tokens of `raw`."""
        if self.kind == "nchw":
            return features
        if self.kind == "nhwc":
            return features.permute(0, 2, 3, 1)
        tokens = features.flatten(2).transpose(1, 2)
        return tokens if self.prefix == 0 else torch.cat([raw[:, : self.prefix], tokens], 1)


def layout_of(network: nn.Module, raw: object) -> Layout:
    """Layout of the features of a network for a square image."""
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
    """Switch off fused attention, which has no second derivative, in the layers after the tap:
    those after the blocks (for last_block from the last one on), or the last module.
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


def of_the_batch(module: nn.Module) -> bool:
    """Whether a module uses batch statistics in training."""
    # Other batch norms (EvoNorm-B) are recognized by their buffers; a frozen one has no momentum.
    running = getattr(module, "running_var", None) is not None and hasattr(module, "momentum")
    return isinstance(module, _BatchNorm) or running


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has a module that uses batch statistics in training."""
    return any(of_the_batch(module) for module in model.modules())


def statistics(norm: nn.Module) -> dict[str, Tensor]:
    """Copy of the running statistics of a batch norm; empty if it has none."""
    return {
        name: value.clone()
        for name, value in norm.named_buffers(recurse=False)
        if name.startswith("running_")
    }


@contextmanager
def as_evaluated(norms: Sequence[nn.Module], kept: Sequence[dict[str, Tensor]]) -> Iterator[None]:
    """Context in which batch norms are in evaluation mode, so that images are independent."""
    modes = [norm.training for norm in norms]
    own = [
        {name: norm.get_buffer(name) for name in values}
        for norm, values in zip(norms, kept, strict=True)
    ]
    try:
        for norm, values in zip(norms, kept, strict=True):
            norm.training = False
            _put(norm, values)
        yield
    finally:
        for norm, values, training in zip(norms, own, modes, strict=True):
            norm.training = training
            _put(norm, values)


def _put(norm: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        setattr(norm, name, value)


class ModuleNetwork(nn.Module):
    """Any classifier, in the interface of timm's networks."""

    def __init__(
        self, module: nn.Module, parts: ModuleParts, logits: Callable[[Any], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.module, self.parts = module, parts
        self.output_fmt = parts.layout.upper()  # as timm's networks name it
        self.num_prefix_tokens = parts.prefix
        self.tap: Callable[[Tensor], Tensor] | None = None
        self.plain_attention = False
        self._logits = logits_in if logits is None else logits
        self._running: ExitStack | None = None
        self._hook()

    def forward_features(self, images: Tensor) -> Tensor:
        """Logits (B, C); `tap` is called with the features, and its result replaces them."""
        if self.module.get_submodule(self.parts.features) is not self._hooked[0]:
            self._hook()  # the module was replaced, as where batch norm is fused
        with ExitStack() as stack:
            self._running = stack
            try:
                return self._logits(self.module(images.clone() if self.parts.in_place else images))
            finally:
                self._running = None

    def forward_head(self, logits: Tensor) -> Tensor:
        """The logits."""
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.forward_features(images)

    def get_classifier(self) -> nn.Module | None:
        """The linear classifier, if there is one."""
        return self.module.get_submodule(self.parts.head) if self.parts.head else None

    def _hook(self) -> None:
        part = self.module.get_submodule(self.parts.features)
        self.handle = part.register_forward_hook(self._replace)
        self._hooked = (part,)  # in a tuple: not a submodule a second time

    def _replace(self, _: nn.Module, __: Any, output: Any) -> Any:
        if self._running is None or self.tap is None:  # the module is used without this network
            return None
        if self.plain_attention:  # fused attention has no second derivative
            self._running.enter_context(sdpa_kernel(SDPBackend.MATH))
        if type(output) is tuple:
            return (self.tap(output[0]), *output[1:])
        return self.tap(output)


def logits_in(output: object) -> Tensor:
    """Logits in the output of a classifier: a tensor, or `logits` of an output with names."""
    named = output.get("logits") if isinstance(output, Mapping) else None
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", named)
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the network returns a {type(output).__name__}; say which of it are the logits: "
            "logits=lambda output: …"
        )
    return logits
