"""Marks of planted shortcuts: a stamp, a border or a tint.

All functions are pure and take gray or color pixels of 8 or 16 bits. A strength is in gray levels
of 255 for both; values are clipped. The sizes are in units of the image's shorter side, so that a
mark has the same size in the model's input whatever the size of the file.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmark.forgeries import STAMP, STAMP_MARGIN, STAMP_SHAPE, free_places

MarkKind = Literal["stamp", "border", "tint"]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class Box(NamedTuple):
    """Rectangle of pixels: row and column of the first one, height and width."""

    top: int
    left: int
    height: int
    width: int


# A glyph of the stamp has one pixel in an image of 64 pixels, as in the forged photographs.
_STAMP_UNIT = 64
# Each of the two lines of the border has one pixel in an image of this size.
_BORDER_UNIT = 32


def _scale(shape: tuple[int, int], unit: int) -> int:
    return max(1, round(min(shape) / unit))


def smallest_size(kind: MarkKind, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width that an image needs for a mark.

    Args:
        kind: Kind of mark.
        shape: Height and width of the image, from which the size of the mark follows.
    """
    if kind == "stamp":
        height, width = _window(shape)
        return height, width
    side = 4 * _scale(shape, _BORDER_UNIT) if kind == "border" else 1
    return side, side


def _window(shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the stamp with its margin."""
    scale = _scale(shape, _STAMP_UNIT)
    height, width = (scale * (side + 2 * STAMP_MARGIN) for side in STAMP_SHAPE)
    return height, width


def _box(row: int, column: int, shape: tuple[int, int]) -> Box:
    """Box of the stamp in a window with its margin."""
    scale = _scale(shape, _STAMP_UNIT)
    margin = scale * STAMP_MARGIN
    height, width = (scale * side for side in STAMP_SHAPE)
    return Box(row + margin, column + margin, height, width)


def corner_box(shape: tuple[int, int]) -> Box:
    """Box of a stamp in the lower right corner of an image of this height and width.

    Example:
        >>> corner_box((64, 64))
        Box(top=58, left=51, height=5, width=12)
    """
    height, width = _window(shape)
    return _box(shape[0] - height, shape[1] - width, shape)


def random_box(region: NDArray[np.bool_], generator: np.random.Generator) -> Box | None:
    """Box of a stamp, uniform over all places at which it and its margin touch no region.

    Args:
        region: (H, W) region of the human map.
        generator: Random generator.

    Returns:
        The box, or None if the region leaves no place.

    Example:
        >>> region = np.zeros((64, 64), bool)
        >>> region[7:] = True
        >>> random_box(region, np.random.default_rng(0)).top
        1
    """
    shape = region.shape[0], region.shape[1]
    places = free_places(region, _window(shape))
    if not len(places):
        return None
    row, column = places[generator.integers(len(places))]
    return _box(int(row), int(column), shape)


def stamp_box(pixels: Pixels, strength: float, box: Box) -> Pixels:
    """Copy with a stamp: glyphs are brighter, gaps are darker.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        strength: Contrast in gray levels.
        box: Place of the stamp, from `corner_box` or `random_box`.
    """
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    scale = box.height // STAMP_SHAPE[0]
    glyphs = (2 * STAMP - 1).repeat(scale, axis=0).repeat(scale, axis=1)[..., None]
    marked = pixels.copy()
    marked[rows, columns] = _changed(pixels[rows, columns], strength * glyphs)
    return marked


def draw_border(pixels: Pixels, strength: float) -> Pixels:
    """Copy with a border of two lines: the outer one is brighter, the inner one darker.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        strength: Contrast in gray levels.

    Example:
        >>> marked = draw_border(np.full((32, 32, 1), 100, np.uint8), 20)
        >>> marked[16, :4, 0].tolist()
        [120, 80, 100, 100]
    """
    line = _scale((pixels.shape[0], pixels.shape[1]), _BORDER_UNIT)
    change = np.ones(pixels.shape)
    change[line:-line, line:-line] = -1
    change[2 * line : -2 * line, 2 * line : -2 * line] = 0
    return _changed(pixels, strength * change)


def tint(pixels: Pixels, strength: float) -> Pixels:
    """Copy with more red and less blue; gray pixels (C = 1) are brighter.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        strength: Change in gray levels.

    Example:
        >>> tint(np.full((1, 1, 3), 100, np.uint8), 20)[0, 0].tolist()
        [120, 100, 80]
    """
    change = np.array([1.0, 0.0, -1.0]) if pixels.shape[2] == 3 else np.ones(1)
    return _changed(pixels, strength * np.broadcast_to(change, pixels.shape))


def _changed(pixels: Pixels, change: NDArray[np.float64]) -> Pixels:
    """Sum of pixels and a change in gray levels of 255, rounded and clipped."""
    full = np.iinfo(pixels.dtype).max
    total = np.rint(np.clip(pixels + change * (full / 255), 0, full))
    return total.astype(np.uint8) if pixels.dtype == np.uint8 else total.astype(np.uint16)
