"""Maps as arrays: min-max normalization, and interpolation to the size of the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import fit_box

# As in `saliency.normalise`, which explains them.
CONSTANT_TOLERANCE = 1e-5
LEAST_SPREAD = 1e-30


def normalised(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Min-max normalization of (..., h, w) maps; zeros for constant maps.

    Example:
        >>> normalised(np.array([[1, 3], [2, 1]], np.float32)).tolist()
        [[0.0, 1.0], [0.5, 0.0]]
    """
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    spread = high - low
    largest = np.maximum(np.abs(low), np.abs(high))
    constant = (spread <= CONSTANT_TOLERANCE * largest) | (spread <= LEAST_SPREAD)
    scaled = (maps - low) / np.where(constant, np.float32(1), spread)
    return np.where(constant, 0, scaled).astype(np.float32)


def over_image(
    grid: NDArray[np.float32], form: ImageFormat, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Map over the whole image, linear between the centers of cells.

    Args:
        grid: (h, w) map on the grid of the model.
        form: Input format of the model, which determines the part of the image that the grid
            covers.
        size: Width and height of the image in pixels.

    Returns:
        (height, width) float32; 0 outside of the part that the model sees.

    Example:
        >>> grid = np.array([[0, 1]], np.float32)
        >>> over_image(grid, ImageFormat(2, "squash"), (4, 1)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    width, height = size
    box = fit_box(width, height, form.fit, form.size)
    rows = _weights(height, box.y0, box.y1, grid.shape[0])
    columns = _weights(width, box.x0, box.x1, grid.shape[1])
    return np.asarray(rows @ grid @ columns.T, np.float32)


def _weights(pixels: int, low: float, high: float, cells: int) -> NDArray[np.float32]:
    """(pixels, cells) weights of linear interpolation along one axis.

    Args:
        pixels: Number of pixels of the image.
        low, high: Part of the image that the cells cover.
        cells: Number of cells.
    """
    place = ((np.arange(pixels) + 0.5) / pixels - low) / (high - low)
    position = np.clip(place * cells - 0.5, 0, cells - 1)
    distance = np.abs(position[:, None] - np.arange(cells))
    inside = (place >= 0) & (place <= 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - distance) * inside[:, None]
    return weights.astype(np.float32)
