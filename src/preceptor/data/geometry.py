"""Geometry of images and maps: fits, crops, flips and quarter turns.

A map is a function on the unit square of its source image, x to the right and y down. A `Box` is
the rectangle of this plane that a square canvas shows; it may extend beyond the unit square
(letterbox) or cover a part of it (crop). Flips and quarter turns are applied to the canvas
afterwards. Images and maps use the same boxes, so that they stay aligned at any resolution. Maps as
tensors are resampled and turned in `data.resampling`; this module does not need torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.settings import Fit, ImageFormat

# Letterbox margins: the ImageNet mean color, about 0 after normalization for most backbones. One
# value for all backbones, so that caches do not depend on the model.
OUTSIDE_COLOUR = (124, 116, 104)
# A spread under this share of a map's largest value is rounding: float32 sums over a feature grid
# and area averages of a constant map stay below 1e-6 of it.
CONSTANT_TOLERANCE = 1e-5
# Below this spread a map counts as constant whatever its values: its gradient, 1 ÷ spread and more,
# would not fit float32, and infinities of both signs meet in a NaN. The smallest that any backbone
# gave was 1e-6.
LEAST_SPREAD = 1e-30
MAP_SIDE = 128
"""Side of the stored maps: four cells per cell of the finest usual feature grid (32 × 32)."""


class Box(NamedTuple):
    """Rectangle of the source plane in units of the image: (0, 0) top left, (1, 1) bottom right."""

    x0: float
    y0: float
    x1: float
    y1: float


def same_aspect(one: Any, other: Any) -> Any:
    """Whether two sizes, or (2, n) arrays of them, have one aspect ratio, to 2 % or a pixel."""
    (w, h), (width, height) = one, other
    most = np.maximum((0.02 * h + 1) * width, (0.02 * w + 1) * height)
    return abs(h * width - w * height) <= most


def content_pixels(width: int, height: int, fit: Fit, side: int) -> tuple[int, int, int, int]:
    """Position of the image on a canvas in pixels: (left, top, width, height)."""
    if fit != "letterbox":
        return 0, 0, side, side
    scale = side / max(width, height)
    inner_width = max(1, round(width * scale))
    inner_height = max(1, round(height * scale))
    return (side - inner_width) // 2, (side - inner_height) // 2, inner_width, inner_height


def fit_box(width: int, height: int, fit: Fit, side: int) -> Box:
    """Part of the source plane that a square canvas shows of a width × height image."""
    return Box(*fit_boxes(np.array([[width, height]]), fit, side)[0].tolist())


def fit_boxes(sizes: NDArray[np.integer[Any]], fit: Fit, side: int) -> NDArray[np.float64]:
    """(n, 4) boxes of `fit_box` of images of (n, 2) width and height."""
    sizes = sizes.astype(np.int64).reshape(-1, 2)
    if fit == "squash":
        # One box for all: a million of them would take 32 MB.
        return np.broadcast_to(np.array([0.0, 0.0, 1.0, 1.0]), (len(sizes), 4))
    if fit == "crop":
        low = (1 - sizes.min(axis=1, keepdims=True) / sizes) / 2
        return np.concatenate([low, 1 - low], axis=1)
    scale = side / sizes.max(axis=1, keepdims=True)
    inner = np.rint(sizes * scale).astype(np.int64).clip(1)
    start = (side - inner) // 2
    return np.concatenate([-start / inner, (side - start) / inner], axis=1)


def render(image: NDArray[np.uint8] | Image.Image, fit: Fit, side: int) -> NDArray[np.uint8]:
    """(side, side, C) canvas of an image, (H, W, C) or of mode L or RGB, with antialiasing."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    (width, height), channels = image.size, len(image.getbands())
    left, top, inner_width, inner_height = content_pixels(width, height, fit, side)
    region = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        box = fit_box(width, height, fit, side)
        region = (box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height)
    resized = np.asarray(
        image.resize((inner_width, inner_height), Image.Resampling.BILINEAR, box=region)
    ).reshape(inner_height, inner_width, channels)
    if (inner_height, inner_width) == (side, side):
        return resized
    outside = OUTSIDE_COLOUR if channels == 3 else (round(sum(OUTSIDE_COLOUR) / 3),)
    canvas = np.empty((side, side, channels), np.uint8)
    canvas[:] = outside
    canvas[top : top + inner_height, left : left + inner_width] = resized
    return canvas


def normalized(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Min-max normalization of (..., h, w) maps; zeros for constant maps."""
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    spread = high - low
    largest = np.maximum(np.abs(low), np.abs(high))
    constant = (spread <= CONSTANT_TOLERANCE * largest) | (spread <= LEAST_SPREAD)
    scaled = (maps - low) / np.where(constant, np.float32(1), spread)
    return np.where(constant, 0, scaled).astype(np.float32)


def over_image(
    grid: NDArray[np.float32], form: ImageFormat, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Map over the whole image, linear between the centers of cells."""
    width, height = size
    box = fit_box(width, height, form.fit, form.size)
    rows = _weights(height, box.y0, box.y1, grid.shape[0])
    columns = _weights(width, box.x0, box.x1, grid.shape[1])
    return np.asarray(rows @ grid @ columns.T, np.float32)


def _weights(pixels: int, low: float, high: float, cells: int) -> NDArray[np.float32]:
    """(pixels, cells) weights of linear interpolation; the cells cover a part of one axis."""
    place = ((np.arange(pixels) + 0.5) / pixels - low) / (high - low)
    position = np.clip(place * cells - 0.5, 0, cells - 1)
    distance = np.abs(position[:, None] - np.arange(cells))
    inside = (place >= 0) & (place <= 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - distance) * inside[:, None]
    return weights.astype(np.float32)
