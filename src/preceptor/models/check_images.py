"""Checks of the images that are given to a model."""

from __future__ import annotations

import torch
from torch import Tensor

from preceptor.errors import InputError
from preceptor.models.feature_layout import Layout


def check_uint8(images: Tensor, channels: int) -> None:
    """Check that images are (B, channels, H, W) uint8.

    Raises:
        ValueError: They have another type or shape.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}; give uint8 images, from 0 to 255")
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"images {tuple(images.shape)} must be (B, {channels}, H, W)")


def check_square(layout: Layout | None, images: Tensor) -> None:
    """Check that images are square if the grid is computed from a number of tokens.

    Raises:
        InputError: The features are tokens, and the images are not square.
    """
    height, width = images.shape[-2:]
    if layout is not None and layout.kind == "tokens" and height != width:
        raise InputError(
            f"images are {height} × {width} pixels: the grid of tokens is known for square images "
            "only; give square images"
        )
