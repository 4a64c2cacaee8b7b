"""State of torch: modes of modules, threads, deterministic algorithms, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
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


@contextmanager
def kept_torch_state() -> Iterator[None]:
    """Context after which torch has the threads, algorithms and random numbers of before.

    Example:
        >>> torch.manual_seed(0).initial_seed()
        0
        >>> with kept_torch_state():
        ...     torch.manual_seed(1).initial_seed()
        1
        >>> torch.initial_seed()
        0
    """
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if used else None
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        torch.random.set_rng_state(random)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
