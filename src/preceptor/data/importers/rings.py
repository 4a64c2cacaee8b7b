"""Outlines of shapes: closed rings in pixels, the common form that is filled."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from preceptor.data.importers.shapes import (
    Box,
    Ellipse,
    Floats,
    Mask,
    Points,
    Polygon,
    Polyline,
    Shape,
)

# Largest distance between an arc and the chords that replace it, in pixels.
_SAGITTA = 0.01


def rings_of(shape: Shape, line_width: float, point_radius: float) -> list[list[Floats]]:
    """Rings of a shape.

    Args:
        shape: Any shape except a mask.
        line_width: Width in pixels of lines that have none of their own.
        point_radius: Radius in pixels of points that have none of their own.

    Returns:
        Parts, whose union is the shape; each is a list of rings that are filled by even-odd.

    Example:
        >>> rings_of(Box(1, 2, 3, 4), 1, 1)[0][0].tolist()
        [[1.0, 2.0], [4.0, 2.0], [4.0, 6.0], [1.0, 6.0]]
    """
    match shape:
        case Polygon(rings, rule):
            return [list(rings)] if rule == "even-odd" else [[ring] for ring in rings]
        case Box():
            return [[box_corners(shape)]]
        case Ellipse(x, y, radius_x, radius_y, rotation):
            return [[_ellipse(x, y, radius_x, radius_y, rotation)]]
        case Polyline(points, width):
            return _line(points, line_width if width is None else width)
        case Points(points, radius):
            r = point_radius if radius is None else radius
            return [[_ellipse(x, y, r, r, 0)] for x, y in points.tolist()]
        case Mask():
            raise TypeError("a mask has no rings")


def box_corners(box: Box) -> Floats:
    """(4, 2) corners of a box, clockwise from the upper left one before the rotation."""
    x, y, w, h = box.x, box.y, box.width, box.height
    corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], dtype=np.float64)
    if not box.rotation:
        return corners
    return rotate(corners, (x + w / 2, y + h / 2), box.rotation)


def rotate(points: Floats, pivot: tuple[float, float], degrees: float) -> Floats:
    """Points turned clockwise (as y points downward) about a pivot.

    Example:
        >>> rotate(np.array([[1.0, 0.0]]), (0, 0), 90).round(6).tolist()
        [[0.0, 1.0]]
    """
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    turned: Floats = (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return turned


def bounds(shape: Shape, line_width: float, point_radius: float) -> tuple[float, ...]:
    """Left, top, right and bottom of a shape."""
    if isinstance(shape, Mask):
        height, width = shape.pixels.shape
        return shape.x, shape.y, shape.x + width, shape.y + height
    every = np.concatenate([r for part in rings_of(shape, line_width, point_radius) for r in part])
    return (*every.min(axis=0).tolist(), *every.max(axis=0).tolist())


def _ellipse(x: float, y: float, radius_x: float, radius_y: float, rotation: float) -> Floats:
    largest = min(max(radius_x, radius_y, _SAGITTA), 1e6)
    step = math.acos(1 - min(_SAGITTA / largest, 1.0)) * 2
    angles = np.linspace(0, 2 * math.pi, max(12, math.ceil(2 * math.pi / step)), endpoint=False)
    points = np.stack([radius_x * np.cos(angles) + x, radius_y * np.sin(angles) + y], axis=1)
    return rotate(points, (x, y), rotation) if rotation else points


def _line(points: Floats, width: float) -> list[list[Floats]]:
    """Rectangle around each segment, and a disk at each point: round joints and ends."""
    radius = width / 2
    parts = [[_ellipse(x, y, radius, radius, 0)] for x, y in points.tolist()]
    for start, end in pairwise(points):
        length = float(np.hypot(*(end - start)))
        if length:
            along = (end - start) * (radius / length)
            side = np.array([-along[1], along[0]])
            parts.append([np.array([start + side, end + side, end - side, start - side])])
    return parts
