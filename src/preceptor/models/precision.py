"""Mixed precision: autocast outside lightning-fabric, and the state of the gradient scaler."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch

from preceptor.config.training import Precision


class _Scaling(Protocol):
    """Precision plug-in of lightning-fabric."""

    scaler: torch.amp.GradScaler | None


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


def scaler_state(plugin: object) -> dict[str, Any]:
    """State of the gradient scaler; {} if there is none.

    Args:
        plugin: Precision plug-in of lightning-fabric: `fabric.strategy.precision`.
    """
    scaler = getattr(plugin, "scaler", None)
    return {} if scaler is None else dict(scaler.state_dict())


def renew_scaler(plugin: object, state: dict[str, Any]) -> None:
    """Reset the gradient scaler to a state, also after an interrupted step.

    Args:
        plugin: Precision plug-in of lightning-fabric.
        state: State returned by `scaler_state`; {} = initial state.
    """
    scaler = getattr(plugin, "scaler", None)
    if scaler is None:
        return
    fresh = torch.amp.GradScaler(scaler._device)
    if state:
        fresh.load_state_dict(state)
    cast(_Scaling, plugin).scaler = fresh
