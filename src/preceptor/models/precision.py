"""Precisions: forwards that lightning-fabric does not wrap, and the scale of 16-bit gradients."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch

from preceptor.config.run import Precision


class _Scaling(Protocol):
    """lightning-fabric's plug-in of a precision."""

    scaler: torch.amp.GradScaler | None


_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a forward is computed in a precision; nothing for 32-true.

    Args:
        device: Of the model.
        precision: 32-true, bf16-mixed or 16-mixed.

    Example:
        >>> with autocast(torch.device("cpu"), "bf16-mixed"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    kind = _TYPES.get(precision)
    return torch.autocast(device.type, dtype=kind, enabled=kind is not None)


def scaler_state(plugin: object) -> dict[str, Any]:
    """The scale of gradients, to go on with; {} where nothing scales them.

    Args:
        plugin: lightning-fabric's of the precision: `fabric.strategy.precision`.
    """
    scaler = getattr(plugin, "scaler", None)
    return {} if scaler is None else dict(scaler.state_dict())


def renew_scaler(plugin: object, state: dict[str, Any]) -> None:
    """Scale gradients as a state says, whatever a step that broke off has left behind.

    Args:
        plugin: As in `scaler_state`.
        state: Of `scaler_state`; {} = as at the beginning.
    """
    scaler = getattr(plugin, "scaler", None)
    if scaler is None:
        return
    fresh = torch.amp.GradScaler(scaler._device)
    if state:
        fresh.load_state_dict(state)
    cast(_Scaling, plugin).scaler = fresh
