"""Batch norm: over the batch of all devices where a run has several, and kept out of a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from preceptor.errors import InputError


def of_the_batch(module: nn.Module) -> bool:
    """Whether a module computes with statistics of its batch while it is trained."""
    # Norms of another make (EvoNorm-B) are known by what they keep; a frozen one has no momentum.
    running = getattr(module, "running_var", None) is not None and hasattr(module, "momentum")
    return isinstance(module, _BatchNorm) or running


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model computes with statistics of its batch while it is trained."""
    return any(of_the_batch(module) for module in model.modules())


def synchronise(model: nn.Module, device: torch.device, name: str) -> None:
    """Let a model's batch norm see the batch of all devices; its state dict does not change.

    Args:
        model: Its children are replaced in place.
        device: Where it will be trained.
        name: Of the backbone, for people.

    Raises:
        InputError: It cannot: without a GPU, or a batch norm of another make than torch's.
    """
    if not has_batch_norm(model):
        return
    if device.type != "cuda":
        raise InputError(
            f"{name} has batch norm, which over several devices needs GPUs (SyncBatchNorm), and "
            "these are CPU processes; set training.devices: 1, or take a backbone without batch "
            "norm"
        )
    # Not torch's: it would drop the activation that timm's layers carry.
    for child, module in list(model.named_children()):
        setattr(model, child, convert_sync_batchnorm(module))  # type: ignore[no-untyped-call]
    for module in model.modules():
        if of_the_batch(module) and not isinstance(module, nn.SyncBatchNorm):
            raise InputError(
                f"{name}: its {type(module).__name__} sees the images of one device alone; set "
                "training.devices: 1, or take another backbone"
            )


def statistics(norm: nn.Module) -> dict[str, Tensor]:
    """A copy of the running statistics of a batch norm; empty where it keeps none."""
    return {
        name: value.clone()
        for name, value in norm.named_buffers(recurse=False)
        if name.startswith("running_")
    }


@contextmanager
def as_evaluated(norms: Sequence[nn.Module], kept: Sequence[dict[str, Tensor]]) -> Iterator[None]:
    """Batch norms in evaluation mode for a while, in which images do not meet.

    Args:
        norms: Each has its own mode and statistics again afterwards.
        kept: The `statistics` that each computes with; where they are empty, its own.
    """
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
