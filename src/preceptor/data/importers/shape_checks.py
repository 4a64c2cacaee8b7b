"""Checks of shapes against the size of their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from preceptor.data.importers.rasterize import RasterOptions
from preceptor.data.importers.rings import bounds
from preceptor.data.importers.shapes import Box, Ellipse, Mask, Points, Polygon, Polyline, Shape


def wrong_shapes(
    shapes: Sequence[Shape], width: int, height: int, raster: RasterOptions
) -> Iterator[tuple[int, str]]:
    """Index of each wrong shape, and what is wrong with it.

    Polygons are looked at together, since one by one they would take as long as their filling.

    Args:
        shapes: All shapes of an image.
        width, height: Size of the image.
        raster: Widths of lines and points.
    """
    suspect = [n for n, one in enumerate(shapes) if not isinstance(one, Polygon)]
    owners = [n for n, one in enumerate(shapes) if isinstance(one, Polygon) for _ in one.rings]
    rings = [ring for one in shapes if isinstance(one, Polygon) for ring in one.rings]
    suspect += [n for n, one in enumerate(shapes) if isinstance(one, Polygon) and not one.rings]
    if rings:
        lengths = np.fromiter(map(len, rings), np.int64, len(rings))
        good: NDArray[np.bool_] = np.zeros(len(rings), bool)
        if lengths.min() >= 3:
            points = np.concatenate(rings)
            starts = np.cumsum(lengths) - lengths
            low = np.minimum.reduceat(points, starts)
            high = np.maximum.reduceat(points, starts)
            inside = (high > 0) & (low < (width, height))
            np.all(inside & (high < np.inf) & (low > -np.inf), axis=1, out=good)
        if not good.all():
            suspect += sorted({owners[at] for at in np.flatnonzero(~good).tolist()})
    for number in sorted(suspect):
        if why := wrong_shape(shapes[number], width, height, raster):
            yield number, why


def wrong_shape(shape: Shape, width: int, height: int, raster: RasterOptions) -> str:
    """What is wrong with a shape, or "".

    A shape must have finite coordinates, not be empty, and lie in the image at least in part.

    Example:
        >>> wrong_shape(Box(20, 0, 5, 5), 10, 10, RasterOptions())
        'the box lies outside the image of 10×10 (20, 0 to 25, 5)'
    """
    name = type(shape).__name__.lower()
    match shape:
        case Box(x, y, w, h, rotation):
            numbers: object = (x, y, w, h, rotation)
            empty = not (w > 0 and h > 0)
        case Ellipse(x, y, rx, ry, rotation):
            numbers, empty = (x, y, rx, ry, rotation), not (rx > 0 and ry > 0)
        case Polygon(rings):
            numbers = np.concatenate([np.zeros((0, 2)), *rings])
            empty = not rings or min(map(len, rings)) < 3
        case Polyline(points) | Points(points):
            numbers = points
            empty = len(points) < (2 if isinstance(shape, Polyline) else 1)
        case Mask(pixels):
            numbers, empty = (), not pixels.any()
    if not np.isfinite(np.asarray(numbers, np.float64)).all():
        return f"the {name} has a coordinate that is not a finite number"
    if empty:
        return f"the {name} is empty"
    left, top, right, bottom = bounds(shape, raster.line_width, raster.point_radius)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        place = f"{left:g}, {top:g} to {right:g}, {bottom:g}"
        return f"the {name} lies outside the image of {width}×{height} ({place})"
    return ""
