"""Marks of planted shortcuts: a stamp, a border or a tint.

Sizes are in units of the image's shorter side, so that a mark has the same size in the model's
input whatever the size of the file. A stamp can be drawn for an input size instead: scaling to a
small input makes thin glyphs pale.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmark.forgeries import STAMP, STAMP_MARGIN, STAMP_SHAPE, free_places
from preceptor.data.geometry import render

MarkKind = Literal["stamp", "border", "tint"]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class Box(NamedTuple):
    """Rectangle of pixels: row and column of the first one, height and width."""

    top: int
    left: int
    height: int
    width: int


# A cell of the stamp's glyphs has one pixel in an image of 64 pixels, as in the forged photographs.
_STAMP_UNIT = 64
# Pixels of the input over which the filter of `geometry.render` averages where it scales down: a
# cell of this width keeps its contrast in a pixel at its middle, three quarters of it elsewhere.
_FILTER_WIDTH = 2
# Row and column of a cell in the middle of a vertical stroke between two gaps.
_STROKE = (3, 5)
# Each of the two lines of the border has one pixel in an image of this size.
_BORDER_UNIT = 32


def _scale(shape: tuple[int, int], unit: int) -> int:
    return max(1, round(min(shape) / unit))


def stamp_cell(shape: tuple[int, int], input_size: int | None = None) -> int:
    """Side of a cell of the stamp's glyphs in pixels of the image; a stroke is one cell wide."""
    cell = _scale(shape, _STAMP_UNIT)
    if input_size is None or max(shape) <= input_size:
        return cell
    return max(cell, math.ceil(_FILTER_WIDTH * max(shape) / input_size))


def smallest_size(
    kind: MarkKind, shape: tuple[int, int], input_size: int | None = None
) -> tuple[int, int]:
    """Height and width that an image of this shape needs for a mark."""
    if kind == "stamp":
        return _window(stamp_cell(shape, input_size))
    side = 4 * _scale(shape, _BORDER_UNIT) if kind == "border" else 1
    return side, side


def _window(cell: int) -> tuple[int, int]:
    """Height and width of the stamp with its margin."""
    height, width = (cell * (side + 2 * STAMP_MARGIN) for side in STAMP_SHAPE)
    return height, width


def _box(row: int, column: int, cell: int) -> Box:
    """Box of the stamp in a window with its margin."""
    margin = cell * STAMP_MARGIN
    height, width = (cell * side for side in STAMP_SHAPE)
    return Box(row + margin, column + margin, height, width)


def corner_box(shape: tuple[int, int], input_size: int | None = None) -> Box:
    """Box of a stamp in the lower right corner of an image."""
    cell = stamp_cell(shape, input_size)
    height, width = _window(cell)
    return _box(shape[0] - height, shape[1] - width, cell)


def random_box(
    region: NDArray[np.bool_], generator: np.random.Generator, input_size: int | None = None
) -> Box | None:
    """Box of a stamp, uniform over all places at which it and its margin touch no region.

    `region` (H, W).
    """
    cell = stamp_cell((region.shape[0], region.shape[1]), input_size)
    places = free_places(region, _window(cell))
    if not len(places):
        return None
    row, column = places[generator.integers(len(places))]
    return _box(int(row), int(column), cell)


def stamp_box(pixels: Pixels, strength: float, box: Box) -> Pixels:
    """Copy with a stamp: glyphs are brighter, gaps are darker."""
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    scale = box.height // STAMP_SHAPE[0]
    glyphs = (2 * STAMP - 1).repeat(scale, axis=0).repeat(scale, axis=1)[..., None]
    marked = pixels.copy()
    marked[rows, columns] = _changed(pixels[rows, columns], strength * glyphs)
    return marked


def kept_contrast(box: Box, shape: tuple[int, int], input_size: int) -> float:
    """Contrast of a stamp's thin strokes in the squashed input, divided by that in the image."""
    most = 127
    stamped = stamp_box(np.full((*shape, 1), most, np.uint8), most, box)
    scaled = render(stamped.astype(np.uint8), "squash", input_size)
    cell = box.height // STAMP_SHAPE[0]
    down, along = input_size / shape[0], input_size / shape[1]
    row = int((box.top + (_STROKE[0] + 0.5) * cell) * down)
    left = box.left + _STROKE[1] * cell
    stroke = scaled[row, int(left * along) : math.ceil((left + cell) * along)]
    return (float(stroke.max()) - most) / most


def draw_border(pixels: Pixels, strength: float) -> Pixels:
    """Copy with a border of two lines: the outer one is brighter, the inner one darker."""
    line = _scale((pixels.shape[0], pixels.shape[1]), _BORDER_UNIT)
    change = np.ones(pixels.shape)
    change[line:-line, line:-line] = -1
    change[2 * line : -2 * line, 2 * line : -2 * line] = 0
    return _changed(pixels, strength * change)


def tint(pixels: Pixels, strength: float) -> Pixels:
    """Copy with more red and less blue; gray pixels (C = 1) are brighter."""
    change = np.array([1.0, 0.0, -1.0]) if pixels.shape[2] == 3 else np.ones(1)
    return _changed(pixels, strength * np.broadcast_to(change, pixels.shape))


def _changed(pixels: Pixels, change: NDArray[np.float64]) -> Pixels:
    """Sum of pixels and a change in gray levels of 255, rounded and clipped."""
    full = np.iinfo(pixels.dtype).max
    total = np.rint(np.clip(pixels + change * (full / 255), 0, full))
    return total.astype(np.uint8) if pixels.dtype == np.uint8 else total.astype(np.uint16)
