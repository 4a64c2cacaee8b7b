"""Levels of stored images: 8 or 16 bits, or float in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def largest(kind: torch.dtype) -> float:
    """The largest level of a type of images."""
    return {torch.uint8: 255.0, torch.uint16: 65535.0}.get(kind, 1.0)


def stored(levels: Tensor, kind: torch.dtype) -> Tensor:
    """Float levels as the type that images are stored in; changes `levels`."""
    levels = levels.clamp_(0, largest(kind))
    if kind not in (torch.uint8, torch.uint16):
        return levels.to(kind)
    # By way of a signed type: torch's conversion from float to uint8 is not vectorised.
    return levels.round_().to(torch.int16 if kind == torch.uint8 else torch.int32).to(kind)


def signed(images: Tensor) -> Tensor:
    """The same bits in a type that torch can flip and choose from: it lacks both for uint16."""
    return images.view(torch.int16) if images.dtype == torch.uint16 else images


def chosen(images: Tensor, which: Tensor) -> Tensor:
    """The images at these (n,) positions."""
    return signed(images).index_select(0, which).view(images.dtype)
