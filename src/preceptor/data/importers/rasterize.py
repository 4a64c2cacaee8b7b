"""Shapes to maps: one grayscale image, bright inside the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preceptor.data.importers.rings import bounds, rings_of
from preceptor.data.importers.shapes import Floats, Mask, Pixels, Polygon, Shape
from preceptor.errors import InputError

_Ints = NDArray[np.int64]

# Crossings of edges and rows that are sorted at once; bounds the memory of crowded images.
_CROSSINGS = 4_000_000
# Coordinates beyond are moved here; no image is as large, and sums of them stay finite.
_FAR = 1e9


@dataclass(frozen=True)
class RasterOptions:
    """How shapes become a map.

    Args:
        shape: `filled`: 255 inside, 0 outside; `soft`: filled, then blurred, see `soften`;
            `centre`: a Gaussian at the center of the bounding box of each shape, with a quarter of
            its sides as standard deviations.
        soft: Standard deviation of the blur in pixels, for `soft`.
        line_width: Width in pixels of lines that have none of their own.
        point_radius: Radius in pixels of points that have none of their own.
    """

    shape: Literal["filled", "soft", "centre"] = "filled"
    soft: float = 0.0
    line_width: float = 3.0
    point_radius: float = 5.0


def parse_shape(text: str) -> tuple[Literal["filled", "soft", "centre"], float]:
    """Value of `--shape`: filled, soft:PX or centre.

    Raises:
        InputError: It is another text.

    Example:
        >>> parse_shape("soft:2.5")
        ('soft', 2.5)
    """
    name, _, number = text.partition(":")
    if name == "filled" and not number:
        return "filled", 0.0
    if name == "centre" and not number:
        return "centre", 0.0
    if name == "soft":
        try:
            pixels = float(number)
        except ValueError:
            pixels = 0.0
        if 0 < pixels <= 1000:
            return "soft", pixels
    raise InputError(f"--shape {text!r}: write filled, soft:PX (such as soft:4) or centre")


def rasterize(
    shapes: Sequence[Shape], width: int, height: int, options: RasterOptions = RasterOptions()
) -> Pixels:
    """Map of the union of shapes.

    A pixel is inside a shape if its center is; a center on an edge belongs to the shape on its
    right or below. Parts outside the image are cut off.

    Args:
        shapes: Shapes with finite coordinates.
        width, height: Size of the map in pixels.
        options: How shapes become a map.

    Returns:
        uint8 of shape (height, width); where shapes overlap, the largest value.

    Example:
        >>> from preceptor.data.importers.shapes import Box
        >>> rasterize([Box(1, 0, 2, 1)], 4, 2).tolist()
        [[0, 255, 255, 0], [0, 0, 0, 0]]
    """
    if options.shape == "centre":
        return _centres(shapes, width, height, options)
    drawn = [one for one in shapes if not isinstance(one, Mask)]
    filled = fill(drawn, width, height, options) if drawn else np.zeros((height, width), np.uint8)
    for one in shapes:
        if isinstance(one, Mask):
            paste(filled, one)
    return soften(filled, options.soft) if options.shape == "soft" else filled


def soften(pixels: Pixels, spread: float) -> Pixels:
    """Map blurred by a Gaussian and scaled so that its largest value stays the same.

    Without the scale, shapes that are smaller than the blur would have few gray levels or none.

    Args:
        pixels: uint8 of shape (height, width).
        spread: Standard deviation in pixels.

    Example:
        >>> soften(np.array([[0, 0, 255, 0, 0]], np.uint8), 1.0).tolist()
        [[35, 155, 255, 155, 35]]
    """
    if not pixels.any():
        return pixels
    blurred = ndimage.gaussian_filter(pixels.astype(np.float32), spread, mode="constant")
    scaled: Pixels = np.rint(blurred * (int(pixels.max()) / blurred.max())).astype(np.uint8)
    return scaled


def fill(shapes: Sequence[Shape], width: int, height: int, options: RasterOptions) -> Pixels:
    """Union of shapes without masks, as uint8 of shape (height, width) with 0 and 255."""
    rings: list[Floats] = []
    group: list[int] = []  # rings of one group are filled by even-odd together
    for shape in shapes:
        if isinstance(shape, Polygon) and (shape.rule == "union" or len(shape.rings) == 1):
            rings.extend(shape.rings)
            start = group[-1] + 1 if group else 0
            group.extend(range(start, start + len(shape.rings)))
            continue
        for part in rings_of(shape, options.line_width, options.point_radius):
            rings.extend(part)
            group.extend([group[-1] + 1 if group else 0] * len(part))
    return fill_rings(rings, group, width, height)


def fill_rings(rings: Sequence[Floats], groups: Sequence[int], width: int, height: int) -> Pixels:
    """Union of groups of rings, each group filled by the even-odd rule at pixel centers.

    Args:
        rings: Arrays of shape (n, 2).
        groups: Group of each ring, not decreasing.
        width, height: Size of the result.

    Returns:
        uint8 of shape (height, width) with 0 and 255.
    """
    lengths = np.fromiter(map(len, rings), np.int64, len(rings))
    if not lengths.sum():
        return np.zeros((height, width), np.uint8)
    x, y = np.minimum(np.maximum(np.concatenate(rings).T, -_FAR), _FAR)
    of_point = np.repeat(np.asarray(groups, np.int64), lengths)
    ends = np.cumsum(lengths)
    following = np.arange(1, len(x) + 1)
    following[ends[lengths > 0] - 1] = (ends - lengths)[lengths > 0]
    next_x, next_y = x[following], y[following]
    # Edges run from their upper end, so that one there and back crosses a row at the same place.
    up = next_y < y
    top, bottom = np.minimum(y, next_y), np.maximum(y, next_y)
    left, right = np.where(up, next_x, x), np.where(up, x, next_x)
    across, down = right - left, bottom - top
    # Rows whose center lies in [top, bottom): each ring crosses each row an even number of times,
    # and horizontal edges cross none.
    first, last = _pixels(top, height), _pixels(bottom, height)
    crossing = np.flatnonzero(last > first)
    if not len(crossing):
        return np.zeros((height, width), np.uint8)
    rows = (last - first)[crossing]
    wide = width + 1  # a run may end behind the last column
    places: list[_Ints] = []
    for part in _parts(rows, of_point[crossing]):
        count = rows[part]
        edge = np.repeat(crossing[part], count)
        before = np.cumsum(count) - count
        row = np.arange(len(edge)) + np.repeat(first[crossing[part]] - before, count)
        column = _pixels(left[edge] + (row + 0.5 - top[edge]) * across[edge] / down[edge], width)
        # One sort by group, row and column; an even number of crossings of a row follow each other.
        place = (of_point[edge] * height + row) * wide + column
        place.sort()
        places.append(place % (height * wide))
    runs = np.concatenate(places)
    return np.ascontiguousarray(_union(runs[0::2], runs[1::2], wide, height)[:, :width])


def _pixels(at: Floats, count: int) -> _Ints:
    """Index of the first pixel whose center is not before a coordinate, from 0 to count."""
    return np.minimum(np.maximum(np.ceil(at - 0.5), 0), count).astype(np.int64)


def _parts(rows: _Ints, group: _Ints) -> list[slice]:
    """Ranges of edges with a bounded number of crossings, which do not divide a group."""
    total = np.cumsum(rows)
    if total[-1] <= _CROSSINGS:
        return [slice(0, len(rows))]
    borders = [*np.flatnonzero(np.diff(group)) + 1, len(rows)]
    cuts = [0]
    for border, after in pairwise(borders):
        done = total[cuts[-1] - 1] if cuts[-1] else 0
        if total[after - 1] - done > _CROSSINGS:
            cuts.append(int(border))
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(rows)], strict=True)]


def _union(starts: _Ints, stops: _Ints, width: int, height: int) -> Pixels:
    """Union of runs of pixels, numbered row by row, as an image."""
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(stops[order])
    new = np.empty(len(starts), bool)
    new[0] = True
    np.greater(starts[1:], reach[:-1], out=new[1:])
    first = np.flatnonzero(new)
    edges = np.empty(2 * len(first) + 2, np.int64)
    edges[0], edges[-1] = 0, width * height
    edges[1:-1:2] = starts[first]
    edges[2:-2:2], edges[-2] = reach[first[1:] - 1], reach[-1]
    values = np.zeros(len(edges) - 1, np.uint8)
    values[1::2] = 255
    return np.repeat(values, np.diff(edges)).reshape(height, width)


def paste(onto: Pixels, mask: Mask) -> None:
    """Larger value of a map and a mask, in place; parts outside the map are cut off."""
    height, width = onto.shape
    high, wide = mask.pixels.shape
    top, left = max(mask.y, 0), max(mask.x, 0)
    bottom, right = min(mask.y + high, height), min(mask.x + wide, width)
    if top < bottom and left < right:
        part = mask.pixels[top - mask.y : bottom - mask.y, left - mask.x : right - mask.x]
        place = onto[top:bottom, left:right]
        np.maximum(place, part, out=place)


def _centres(shapes: Sequence[Shape], width: int, height: int, options: RasterOptions) -> Pixels:
    """Largest of the Gaussians of all shapes."""
    found = np.zeros((height, width), np.float32)
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    for shape in shapes:
        if isinstance(shape, Mask):
            shape = _cropped(shape)
        left, top, right, bottom = bounds(shape, options.line_width, options.point_radius)
        spread_x, spread_y = (max(side / 4, 0.5) for side in (right - left, bottom - top))
        across = np.exp(-0.5 * ((columns - (left + right) / 2) / spread_x) ** 2)
        down = np.exp(-0.5 * ((rows - (top + bottom) / 2) / spread_y) ** 2)
        np.maximum(found, np.outer(down, across).astype(np.float32), out=found)
    return np.rint(found * 255).astype(np.uint8)


def _cropped(mask: Mask) -> Mask:
    """Mask without empty rows and columns."""
    rows, columns = np.flatnonzero(mask.pixels.any(axis=1)), np.flatnonzero(mask.pixels.any(axis=0))
    if not len(rows):
        return mask
    top, left = int(rows[0]), int(columns[0])
    part = mask.pixels[top : rows[-1] + 1, left : columns[-1] + 1]
    return Mask(part, mask.x + left, mask.y + top)
