"""Where a pixel of the source image lands: one exact geometry for images and maps.

A map is a function on the unit square of its source image, x to the right and y down. A `Box` says
which rectangle of that plane a square canvas shows; it may reach beyond the unit square (letterbox)
or cover a part of it (crop). Flips and quarter turns act on the canvas afterwards. Images and maps
go through the same boxes, so a mark stays on what it marks, at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from preceptor.config.image_format import Fit

# What lies outside the image under letterbox: the ImageNet mean colour, about 0 after
# normalisation for most backbones. One value for all, so that caches do not depend on the model.
OUTSIDE_COLOUR = (124, 116, 104)


@dataclass(frozen=True)
class Box:
    """A rectangle of the source plane in units of the image: (0, 0) top left, (1, 1) bottom right.

    Args:
        x0, y0, x1, y1: Left, top, right and bottom; finite, x0 < x1 and y0 < y1.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def inside(self, part: Box) -> Box:
        """The source rectangle of `part`, where `part` is in units of this box.

        Example:
            >>> Box(0.0, 0.0, 1.0, 0.5).inside(Box(0.5, 0.5, 1.0, 1.0))
            Box(x0=0.5, y0=0.25, x1=1.0, y1=0.5)
        """
        width, height = self.x1 - self.x0, self.y1 - self.y0
        return Box(
            self.x0 + part.x0 * width,
            self.y0 + part.y0 * height,
            self.x0 + part.x1 * width,
            self.y0 + part.y1 * height,
        )

    def as_tuple(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1)."""
        return self.x0, self.y0, self.x1, self.y1


def content_pixels(width: int, height: int, fit: Fit, side: int) -> tuple[int, int, int, int]:
    """Where the image lies on a letterboxed canvas: (left, top, width, height) in canvas pixels.

    The other fits fill the canvas.

    Example:
        >>> content_pixels(200, 100, "letterbox", 64)
        (0, 16, 64, 32)
    """
    if fit != "letterbox":
        return 0, 0, side, side
    scale = side / max(width, height)
    inner_width = max(1, round(width * scale))
    inner_height = max(1, round(height * scale))
    return (side - inner_width) // 2, (side - inner_height) // 2, inner_width, inner_height


def fit_box(width: int, height: int, fit: Fit, side: int) -> Box:
    """The part of the source plane that a canvas of `side` pixels shows of a width × height image.

    Args:
        width, height: The image's size in pixels, after its orientation tag is applied.
        fit: squash (the whole image, aspect ignored), letterbox (the whole image, aspect kept) or
            crop (the centred square).
        side: The canvas in pixels; letterbox content starts on whole pixels, and the box says
            exactly which.

    Example:
        >>> fit_box(200, 100, "crop", 64)
        Box(x0=0.25, y0=0.0, x1=0.75, y1=1.0)
    """
    if fit == "squash":
        return Box(0.0, 0.0, 1.0, 1.0)
    if fit == "crop":
        shorter = min(width, height)
        x0, y0 = (1 - shorter / width) / 2, (1 - shorter / height) / 2
        return Box(x0, y0, 1 - x0, 1 - y0)
    left, top, inner_width, inner_height = content_pixels(width, height, fit, side)
    return Box(
        -left / inner_width,
        -top / inner_height,
        (side - left) / inner_width,
        (side - top) / inner_height,
    )


def fit_boxes(sizes: NDArray[np.integer[Any]], fit: Fit, side: int) -> NDArray[np.float64]:
    """The boxes of many images at once: row by row the numbers of `fit_box`.

    Args:
        sizes: (n, 2) width and height of each image in pixels.
        fit, side: As in `fit_box`.

    Returns:
        (n, 4) x0, y0, x1, y1.

    Example:
        >>> fit_boxes(np.array([[200, 100], [64, 64]]), "crop", 64)
        array([[0.25, 0.  , 0.75, 1.  ],
               [0.  , 0.  , 1.  , 1.  ]])
    """
    sizes = sizes.astype(np.int64).reshape(-1, 2)
    if fit == "squash":
        return np.tile(np.array([0.0, 0.0, 1.0, 1.0]), (len(sizes), 1))
    if fit == "crop":
        low = (1 - sizes.min(axis=1, keepdims=True) / sizes) / 2
        return np.concatenate([low, 1 - low], axis=1)
    scale = side / sizes.max(axis=1, keepdims=True)
    inner = np.rint(sizes * scale).astype(np.int64).clip(1)
    start = (side - inner) // 2
    return np.concatenate([-start / inner, (side - start) / inner], axis=1)


def render(image: NDArray[np.uint8], fit: Fit, side: int) -> NDArray[np.uint8]:
    """An image on its square canvas, antialiased.

    Args:
        image: (H, W, C) uint8 with C = 1 or 3.
        fit: As in `fit_box`, whose box describes the result.
        side: Canvas side in pixels.

    Returns:
        (side, side, C) uint8.
    """
    height, width, channels = image.shape
    source = Image.fromarray(image[..., 0] if channels == 1 else image)
    left, top, inner_width, inner_height = content_pixels(width, height, fit, side)
    region = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        box = fit_box(width, height, fit, side)
        region = (box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height)
    resized = np.asarray(
        source.resize((inner_width, inner_height), Image.Resampling.BILINEAR, box=region)
    ).reshape(inner_height, inner_width, channels)
    if (inner_height, inner_width) == (side, side):
        return resized
    outside = OUTSIDE_COLOUR if channels == 3 else (round(sum(OUTSIDE_COLOUR) / 3),)
    canvas = np.empty((side, side, channels), np.uint8)
    canvas[:] = outside
    canvas[top : top + inner_height, left : left + inner_width] = resized
    return canvas


def _overlap(
    cells: int, low: Tensor, high: Tensor, own_low: Tensor, own_high: Tensor, own_cells: int
) -> Tensor:
    """Share of each target cell along one axis that each source cell covers: (B, cells, own)."""
    ticks = torch.arange(cells + 1, dtype=low.dtype, device=low.device) / cells
    edges = low[:, None] + ticks * (high - low)[:, None]  # (B, cells + 1)
    own_ticks = torch.arange(own_cells + 1, dtype=low.dtype, device=low.device) / own_cells
    own_edges = own_low[:, None] + own_ticks * (own_high - own_low)[:, None]
    upper = torch.minimum(edges[:, 1:, None], own_edges[:, None, 1:])
    lower = torch.maximum(edges[:, :-1, None], own_edges[:, None, :-1])
    return (upper - lower).clamp_min_(0) / (edges[:, 1:] - edges[:, :-1])[:, :, None]


def resample(maps: Tensor, regions: Tensor, boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average each map over the cells of a grid: exact area resampling, separable, batched.

    Cell (i, j) of the grid gets the mean of the piecewise-constant map over the rectangle that the
    cell covers in the source plane; beyond its region a map is 0.

    Args:
        maps: (B, H, W) floats.
        regions: (B, 4) the part of the source plane that each map covers, (x0, y0, x1, y1).
        boxes: (B, 4) the part that each grid covers.
        grid: (h, w).

    Returns:
        (B, h, w).

    Example:
        >>> m = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
        >>> unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> resample(m, unit, unit, (1, 4))
        tensor([[[0., 0., 1., 1.]]])
    """
    height, width = maps.shape[-2:]
    # Edges are differences of nearby numbers: float64 keeps a cell's share exact to 1e-12.
    own, to = regions.double(), boxes.double()
    rows = _overlap(grid[0], to[:, 1], to[:, 3], own[:, 1], own[:, 3], height).to(maps.dtype)
    columns = _overlap(grid[1], to[:, 0], to[:, 2], own[:, 0], own[:, 2], width).to(maps.dtype)
    return rows @ maps @ columns.transpose(1, 2)


@dataclass(frozen=True)
class Turn:
    """A flip and quarter turns of a square canvas, in this order: flip left-right, then turn.

    Args:
        flip: Mirror left and right first.
        quarters: Quarter turns counter-clockwise, 0 to 3.
    """

    flip: bool = False
    quarters: int = 0

    @property
    def back(self) -> Turn:
        """The turn that undoes this one; a flip and quarter turns together undo themselves.

        Example:
            >>> Turn(quarters=1).back, Turn(flip=True, quarters=1).back
            (Turn(flip=False, quarters=3), Turn(flip=True, quarters=1))
        """
        return self if self.flip else Turn(quarters=-self.quarters % 4)


# All symmetries of the square, the untouched one first.
TURNS = tuple(Turn(flip, quarters) for flip in (False, True) for quarters in range(4))


def turn_array(array: NDArray[np.generic], turn: Turn) -> NDArray[np.generic]:
    """Apply `turn` to the first two axes of (H, W, ...)."""
    if turn.flip:
        array = array[:, ::-1]
    return np.rot90(array, turn.quarters) if turn.quarters else array


def turn_maps(maps: Tensor, flips: Tensor, quarters: Tensor) -> Tensor:
    """Apply a turn of its own to each of (B, h, w) maps; h = w where any quarter turn is odd.

    Args:
        maps: (B, h, w).
        flips: (B,) bool.
        quarters: (B,) integers 0 to 3.
    """
    turned = torch.where(flips[:, None, None], maps.flip(-1), maps)
    for quarter in (1, 2, 3):
        chosen = quarters == quarter
        if bool(chosen.any()):
            turned = torch.where(
                chosen[:, None, None], torch.rot90(turned, quarter, (-2, -1)), turned
            )
    return turned


def turn_all(values: Tensor, turn: Turn) -> Tensor:
    """Apply one turn to the last two axes of (..., H, W), equal where it is of odd quarters.

    Example:
        >>> turn_all(torch.tensor([[1, 2], [3, 4]]), Turn(quarters=1))
        tensor([[2, 4],
                [1, 3]])
    """
    turned = values.flip(-1) if turn.flip else values
    return torch.rot90(turned, turn.quarters, (-2, -1)) if turn.quarters else turned
