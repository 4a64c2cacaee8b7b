"""The form in which images reach a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fit = Literal["squash", "letterbox", "crop"]


@dataclass(frozen=True)
class ImageFormat:
    """Size, fit and channels of a model's input.

    Args:
        size: Side of the square input in pixels.
        fit: How an image is brought to a square: squash (aspect ignored), letterbox (aspect kept)
            or crop (the centred square).
        channels: 3 (colour) or 1 (grey).
        canvas: Side of the square that is kept of each image, where random crops need more detail
            than the input has; None = the input's.
    """

    size: int
    fit: Fit = "squash"
    channels: int = 3
    canvas: int | None = None

    @property
    def side(self) -> int:
        """Side of the square that is kept of each image, in pixels."""
        return self.canvas or self.size
