"""Input format of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fit = Literal["squash", "letterbox", "crop"]


@dataclass(frozen=True)
class ImageFormat:
    """Size, fit and channels of a model's input.

    Args:
        size: Side of the square input in pixels.
        fit: Method that makes images square: squash (aspect ignored), letterbox (aspect kept) or
            crop (central square).
        channels: 3 (color) or 1 (grayscale).
        canvas: Side of the stored square image in pixels, if random crops need more detail than the
            input has; None = `size`.
    """

    size: int
    fit: Fit = "squash"
    channels: int = 3
    canvas: int | None = None

    @property
    def side(self) -> int:
        """Side of the stored square image, in pixels."""
        return self.canvas or self.size
