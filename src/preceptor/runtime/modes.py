"""Training and evaluation mode of modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Context in which a model is in evaluation mode; the mode of each submodule is restored.

    Args:
        model: Module; other callables have no mode and are not changed.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating(model):
        ...     any(part.training for part in model.modules())
        False
        >>> [part.training for part in model]
        [True, False]
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        if isinstance(model, nn.Module) and any(modes):
            model.eval()
        yield
    finally:
        for part, training in zip(parts, modes, strict=True):
            if part.training != training:
                part.training = training
