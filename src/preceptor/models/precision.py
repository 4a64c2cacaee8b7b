"""Mixed precision: forward passes with autocast, and the gradient scaler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from preceptor.config.training import Precision

_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Autocast context of a precision; a null context for 32-true.

    Args:
        device: Device of the model.
        precision: 32-true, bf16-mixed or 16-mixed.

    Example:
        >>> with autocast(torch.device("cpu"), "bf16-mixed"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    kind = _TYPES.get(precision)
    return torch.autocast(device.type, dtype=kind, enabled=kind is not None)


def in_precision(model: nn.Module, precision: Precision) -> Callable[..., Any]:
    """Forward function of a `GuidedModel` in a precision, whose outputs are float32."""
    if precision not in _TYPES:
        return model

    def forward(*arguments: Any, **options: Any) -> Any:
        with autocast(next(model.parameters()).device, precision):
            out = model(*arguments, **options)
        return out._make(part.float() if part.is_floating_point() else part for part in out)

    return forward


def gradient_scaler(
    device: torch.device, precision: Precision, state: dict[str, Any]
) -> torch.amp.GradScaler:
    """Gradient scaler of 16-mixed with a state, {} = the initial; it does nothing otherwise."""
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
    if state:
        scaler.load_state_dict(state)
    return scaler
