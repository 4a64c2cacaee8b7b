"""Checks of shapes against the size of their image."""

from __future__ import annotations

import math

import numpy as np

from preceptor.data.importers.rasterize import RasterOptions
from preceptor.data.importers.rings import bounds
from preceptor.data.importers.shapes import Box, Ellipse, Mask, Points, Polygon, Polyline, Shape


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
            numbers = None
            if not all(math.isfinite(ring.sum()) for ring in rings):
                return f"the {name} has a coordinate that is not a finite number"
            empty = not rings or min(map(len, rings)) < 3
        case Polyline(points) | Points(points):
            numbers = points
            empty = len(points) < (2 if isinstance(shape, Polyline) else 1)
        case Mask(pixels):
            numbers, empty = None, not pixels.any()
    if numbers is not None and not np.isfinite(numbers).all():  # type: ignore[call-overload]
        return f"the {name} has a coordinate that is not a finite number"
    if empty:
        return f"the {name} is empty"
    left, top, right, bottom = bounds(shape, raster.line_width, raster.point_radius)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        place = f"{left:g}, {top:g} to {right:g}, {bottom:g}"
        return f"the {name} lies outside the image of {width}×{height} ({place})"
    return ""
