"""Batch norm: which modules have it, and its evaluation mode for saliency maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    """Context in which batch norms are in evaluation mode, so that images are independent.

    Args:
        norms: Batch norms; mode and statistics are restored afterwards.
        kept: Running `statistics` to use for each batch norm; empty = its current ones.
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
