"""Fusion of batch norm into the preceding convolutions, for inference."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from preceptor.utils.memory import out_of_memory

# Fusion changes the order of float32 products: differences stay near 1e-6 of the largest output.
TOLERANCE = 1e-3


def fused(network: nn.Module, example: Tensor) -> nn.Module:
    """Copy of a network for inference, with batch norms fused into convolutions if possible.

    The pairs of convolution and batch norm are found in one forward pass of `example`. The outputs
    of both networks on `example` are compared; if they differ, the copy is not fused.

    Args:
        network: Any network; it is not changed.
        example: (B, C, H, W) example input.

    Returns:
        The copy, in evaluation mode, without hooks unless they change the output; the network
        itself if it cannot be copied (weights computed from other weights).

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> fused(network, torch.randn(1, 3, 8, 8))[1]
        Identity()
    """
    # Not in inference mode: weights made in it could not be used outside. Nor under autocast, whose
    # rounding would hide whether two networks are the same.
    device = example.device.type
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device, enabled=False),
    ):
        try:
            plain = copy.deepcopy(network).eval()
        except (RuntimeError, TypeError):
            return network
        example = example.clone()
        if any(part.dtype != example.dtype for part in plain.parameters()):
            return plain  # it needs autocast
        expected = _first(plain(example))
        if not _stripped(plain, example, expected):
            return copy.deepcopy(network).eval()
        pairs = _pairs(plain, example)
        candidate = copy.deepcopy(plain)
        modules = dict(candidate.named_modules())
        for convolution, norm in pairs:
            old = modules[norm]
            _replace(candidate, convolution, fuse_conv_bn_eval(modules[convolution], old))
            # timm's batch norms may carry dropout and activation.
            rest = nn.Sequential(old.drop, old.act) if hasattr(old, "act") else nn.Identity()
            _replace(candidate, norm, rest.eval())
        return candidate if _alike(_first(candidate(example)), expected) else plain


def _stripped(network: nn.Module, example: Tensor, expected: Tensor) -> bool:
    """Remove all hooks from a copy; returns whether its output stays the same without them."""
    for module in network.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    try:
        return _alike(_first(network(example)), expected)
    except Exception as error:  # the forward pass fails without them
        if out_of_memory(error):
            raise
        return False


def _alike(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    gap = (expected - found).abs().max() / expected.abs().max().clamp_min(1e-12)
    return bool(gap < TOLERANCE)


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Names of each convolution and of the batch norm that takes its output."""
    made: dict[int, tuple[str, Tensor]] = {}  # tensors are kept alive, so that ids are unique
    pairs: list[tuple[str, str]] = []
    handles = []

    def watch(name: str) -> Any:
        return lambda _, __, out: made.__setitem__(id(out), (name, out))

    def meet(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            if arguments and id(arguments[0]) in made:
                pairs.append((made[id(arguments[0])][0], name))

        return hook

    for name, module in network.named_modules():
        # Of subclasses, those that say so: others may compute their weights anew in each forward.
        if type(module) is nn.Conv2d or getattr(module, "fusible", False):
            handles.append(module.register_forward_hook(watch(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(meet(name)))
    network(example)
    for handle in handles:
        handle.remove()
    # Run twice or shared, a module has no single partner.
    once = [part for pair in pairs for part in pair]
    return [pair for pair in pairs if once.count(pair[0]) == once.count(pair[1]) == 1]


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _first(output: Any) -> Tensor:
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found
