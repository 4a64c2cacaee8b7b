"""Formats of the images and maps of a cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

from preceptor.config.settings import Fit, ImageFormat

# Increased if the decoded pixels of the same file change: of images, and of maps.
CACHE_FORMAT = 3
MAP_FORMAT = 4
MAP_SIDE = 128
"""Side of the stored maps: four cells per cell of the finest usual feature grid (32 × 32)."""


@dataclass(frozen=True)
class CanvasFormat:
    """Format of the images of a cache.

    Args:
        side: Side of the square canvases in pixels.
        fit: Method that makes images square, see `geometry.fit_box`.
        channels: Number of channels, 3 or 1.
    """

    side: int
    fit: Fit = "squash"
    channels: int = 3

    @classmethod
    def of(cls, form: ImageFormat) -> CanvasFormat:
        """Canvas format for a model's image format."""
        return cls(form.side, form.fit, form.channels)

    @property
    def name(self) -> str:
        """Name of the folder of the shards of this format."""
        return f"{self.side}-{self.fit}-{self.channels}-v{CACHE_FORMAT}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a canvas."""
        return (self.side, self.side, self.channels)

    @property
    def image_bytes(self) -> int:
        """Disk space of an image."""
        return math.prod(self.shape)
