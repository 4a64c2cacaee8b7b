"""Outlines of masks: closed rings around the regions of a mask and their holes.

The border between inside and outside runs along the edges of pixels. Steps of one pixel, which a
slanted border consists of, are replaced by their midpoints. The ring then stays within half a pixel
of the border and has the center of every pixel on the same side, so that filling it by pixel
centers gives the mask again, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]

# Right, down, left and up, as steps of (x, y).
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], np.int64)
_EIGHT = np.ones((3, 3), np.int64)


@dataclass(frozen=True, eq=False)
class Region:
    """Connected region of a mask.

    Args:
        outer: (n, 2) outer ring, x and y, clockwise on the screen; not closed by a repeated point.
        holes: Rings of the holes, counter-clockwise.
    """

    outer: _Floats
    holes: tuple[_Floats, ...]

    @property
    def rings(self) -> tuple[_Floats, ...]:
        """Outer ring and holes."""
        return self.outer, *self.holes


def outline(mask: NDArray[np.bool_], tolerance: float = 0.0) -> list[Region]:
    """Regions of a mask; pixels that share a corner are connected.

    Args:
        mask: bool of shape (height, width).
        tolerance: Largest distance in pixels by which points may be left out (Douglas and Peucker);
            0 = the rings give the mask exactly.

    Returns:
        Regions from top to bottom, in pixels with the origin at the upper left corner of the mask.

    Example:
        >>> region = outline(np.array([[0, 1, 1], [0, 1, 1]], bool))[0]
        >>> region.outer.tolist()
        [[1.0, 0.0], [3.0, 0.0], [3.0, 2.0], [1.0, 2.0]]
    """
    if not mask.any():
        return []
    labels, count = ndimage.label(mask, structure=_EIGHT)
    outer: list[_Floats | None] = [None] * count
    holes: list[list[_Floats]] = [[] for _ in range(count)]
    for corners, inside in _borders(mask):
        of = labels[inside[1], inside[0]] - 1
        ring = _simplified(_without_steps(corners), tolerance)
        if area(corners.astype(np.float64)) > 0:
            outer[of] = ring
        elif len(ring) >= 3:
            holes[of].append(ring)
    return [
        Region(ring, tuple(inner))
        for ring, inner in zip(outer, holes, strict=True)
        if ring is not None and len(ring) >= 3
    ]


def area(ring: _Floats) -> float:
    """Signed area of a ring, positive for clockwise on the screen (y points downward).

    Example:
        >>> area(np.array([(0, 0), (2, 0), (2, 1), (0, 1)], float))
        2.0
    """
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def joined(region: Region) -> _Floats:
    """One ring of a region with holes, for formats without holes.

    Each hole is joined to the ring by a cut without width, there and back between two near points;
    filled by the even-odd or the nonzero rule, the ring is the region.

    Example:
        >>> region = outline(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))[0]
        >>> len(region.holes), len(joined(region))
        (1, 10)
    """
    ring = region.outer
    # From left to right: a cut to the left then meets the outer ring or a hole joined before.
    for hole in sorted(region.holes, key=lambda one: float(one[:, 0].min())):
        start = int(hole[:, 0].argmin())
        turned = np.roll(hole, -start, axis=0)
        place = _nearest(ring, turned[0])
        ring = np.concatenate(
            [ring[: place + 1], turned, turned[:1], ring[place : place + 1], ring[place + 1 :]]
        )
    return ring


def _nearest(ring: _Floats, point: _Floats) -> int:
    """Nearest point of a ring that is not right of a point."""
    distance = np.hypot(*(ring - point).T)
    distance[ring[:, 0] > point[0]] += 1e9
    return int(distance.argmin())


def _borders(mask: NDArray[np.bool_]) -> list[tuple[_Ints, _Ints]]:
    """Corners of each border, with the mask at its right, and a pixel of the mask beside it."""
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), bool)
    padded[1:-1, 1:-1] = mask
    # there[d, y, x]: whether a border of one pixel leaves the corner (x, y) in direction d.
    there = np.zeros((4, height + 1, width + 1), bool)
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    there[0] = below_right & ~above_right
    there[1] = below_left & ~below_right
    there[2] = above_left & ~below_left
    there[3] = above_right & ~above_left
    stride, plane = width + 1, (height + 1) * (width + 1)
    flat = there.reshape(4, plane)
    edges = np.flatnonzero(there)
    direction, corner = np.divmod(edges, plane)
    offsets = np.array([1, stride, -1, -stride])
    end = corner + offsets[direction]
    # Where two borders meet, the turn to the left keeps diagonal pixels connected.
    turn = np.full(len(edges), 2, np.int64)
    for choice in (1, 0, 3):  # right, straight on, left: the last that is there is taken
        ahead = (direction + choice) % 4
        turn = np.where(flat[ahead, end], ahead, turn)
    following = np.searchsorted(edges, turn * plane + end).tolist()
    straight = (turn == direction).tolist()
    found = []
    left = np.ones(len(edges), bool)
    for first in range(len(edges)):
        if not left[first]:
            continue
        members = [first]
        at = following[first]
        while at != first:
            members.append(at)
            at = following[at]
        left[members] = False
        last = members[-1:] + members[:-1]  # its end is the corner at which the first side begins
        corners = np.array([end[one] for one in last if not straight[one]], np.int64)
        row, column = divmod(int(corner[first]), stride)
        # The pixel at the right of the first edge.
        dx, dy = ((0, 0), (-1, 0), (-1, -1), (0, -1))[int(direction[first])]
        points = np.stack([corners % stride, corners // stride], axis=1)
        found.append((points, np.array([column + dx, row + dy])))
    return found


def _without_steps(corners: _Ints) -> _Floats:
    """Ring with the midpoint of each step instead of its two corners.

    A step is a side of one pixel with opposite turns at its ends. A side between two steps with
    equal turns, such as the top of a disk, keeps its own midpoint: the line between the midpoints
    of the steps would run through the centers of pixels.
    """
    before = corners - np.roll(corners, 1, axis=0)  # side that ends at each corner
    after = np.roll(before, -1, axis=0)
    turn = np.sign(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
    next_turn = np.roll(turn, -1)
    step = (np.abs(after).sum(axis=1) == 1) & (turn != next_turn)  # the side after each corner
    of_step = step | np.roll(step, 1)
    cap = (turn == next_turn) & np.roll(step, 1) & np.roll(step, -1)
    points = corners.astype(np.float64)
    middle = points + after / 2
    both = np.stack([points, middle], axis=1).reshape(-1, 2)
    keep = np.stack([~of_step, step | cap], axis=1).reshape(-1)
    ring = both[keep]
    if len(ring) < 3:
        return points
    return _without_straight(ring)


def _without_straight(ring: _Floats) -> _Floats:
    """Ring without points on the line between their neighbors."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0
    keep = (np.abs(cross) > 1e-9) | back
    return ring[keep] if keep.sum() >= 3 else ring


def _simplified(ring: _Floats, tolerance: float) -> _Floats:
    """Ring with fewer points (Douglas and Peucker 1973), between its two most distant points."""
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    start = int(ring.sum(axis=1).argmin())
    ring = np.roll(ring, -start, axis=0)
    middle = int(np.hypot(*(ring - ring[0]).T).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, middle, len(ring)]] = True
    todo = [(0, middle), (middle, len(ring))]
    while todo:
        low, high = todo.pop()
        if high - low < 2:
            continue
        line = closed[high] - closed[low]
        off = closed[low + 1 : high] - closed[low]
        length = float(np.hypot(*line))
        along = np.clip(off @ line / length**2, 0, 1) if length else np.zeros(len(off))
        distance = np.hypot(*(off - along[:, None] * line).T)
        far = int(distance.argmax())
        if distance[far] > tolerance:
            cut = low + 1 + far
            keep[cut] = True
            todo += [(low, cut), (cut, high)]
    simple = ring[keep[:-1]]
    return simple if len(simple) >= 3 else ring
