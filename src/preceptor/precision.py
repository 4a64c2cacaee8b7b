"""Forwards in a precision, where lightning-fabric does not wrap them."""

from __future__ import annotations

import torch

from preceptor.config import Precision

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
