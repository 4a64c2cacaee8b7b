"""Annotations of one source: shapes in pixels of the image, who drew them, and how they are drawn.

The origin is the upper left corner of the image, x to the right and y downward; the center of the
first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import contourpy
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preceptor.data.images import ImageError
from preceptor.errors import InputError, Problem, ProblemsError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
MAX_PIXELS = 178_956_970
"""Largest number of pixels of a mask, the limit of Pillow's check for decompression bombs."""


@dataclass(frozen=True, slots=True)
class Box:
    """Rectangle by its upper left corner, turned clockwise by degrees about its center."""

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """Union of rings of shape (n, 2), closed by themselves and filled by the even-odd rule."""

    rings: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Ellipse about a center, turned clockwise by degrees."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Polyline:
    """Open line through points of shape (n, 2), drawn by `LINE_WIDTH`."""

    points: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Single points of shape (n, 2), each drawn as a disc by `POINT_RADIUS`."""

    points: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Part of a gray map: uint8 of shape (height, width), 255 inside, at a column and row."""

    pixels: Pixels
    x: int = 0
    y: int = 0

    def cropped(self) -> Mask:
        """Mask without the empty rows and columns around it."""
        if not self.pixels.any():
            return self
        (place,) = ndimage.find_objects((self.pixels > 0).view(np.uint8))
        return Mask(self.pixels[place].copy(), self.x + place[1].start, self.y + place[0].start)


Shape = Box | Polygon | Ellipse | Polyline | Points | Mask


@dataclass(frozen=True, slots=True)
class Annotation:
    """One shape."""

    shape: Shape
    label: str  # class, or ""
    annotator: str = ""  # person, or "" if the file names nobody
    where: str = ""  # place in the file, for messages ("annotations[3]")


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its shapes, as a source states it."""

    name: str  # `a.*` if the source does not state the suffix
    size: tuple[int, int] | None  # width and height
    annotations: tuple[Annotation, ...]  # of all annotators
    labels: tuple[str, ...] = ()  # classes of the whole image; a table of labels chooses of several
    split: str = ""
    examined: bool | None = None  # whether a person looked at it; None = not stated
    annotators: tuple[str, ...] = ()  # who looked at it, besides the annotators of its shapes
    where: str = ""  # place in the file, for messages ("images[3]")
    of: str = ""  # file, if there are several
    other_name: str = ""  # looked for if there is no image of this name
    upright: bool = False  # whether the shapes are upright, whatever the size says


class Log:
    """Problems and notes of one pass over a source."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: dict[str, int] = {}

    def problem(self, where: str, what: str, fix: str) -> None:
        """Note a problem; the import fails at the end of the pass."""
        self.problems.append(Problem(where, what, fix))

    @contextmanager
    def part(self, where: str, fix: str, path: Path | None = None) -> Iterator[None]:
        """Note the error of a part of a source, "what" or "what; fix", and go on behind it."""
        try:
            yield
        except (ValueError, LookupError, InputError) as error:
            if isinstance(error, KeyError | IndexError):  # a defect of a reader, not of the source
                raise
            text = error.reason if isinstance(error, ImageError) else str(error)
            text = text.removeprefix(f"{path}: ")
            what, _, stated = text.rpartition("; ")
            if not what or "'" in stated:  # a semicolon in a quoted value separates no remedy
                what, stated = text, fix
            self.problem(where, what, stated)

    def note(self, text: str, count: int = 1) -> None:
        """Count something that was read in a way that a user has to know."""
        self.notes[text] = self.notes.get(text, 0) + count


@dataclass(frozen=True)
class ImportedAnnotations:
    """Annotations of one source; each iteration reads the images from the start.

    Raises:
        ProblemsError: At the end of an iteration, if anything in the source is wrong.
    """

    format: str  # name of the format ("coco")
    source: Path
    read: Callable[[Log], Iterator[AnnotatedImage]] = field(repr=False)
    classes: Sequence[str] = ()  # that the source declares
    annotators: Sequence[str] | None = None  # None = known after a pass
    count: int | None = None  # images, if known without a pass
    whole_folder: bool = False  # whether images that the source does not mention belong to it
    masks: Path | None = None  # folder whose image files are no images
    mask_files: frozenset[str] = frozenset()  # masks among the images
    unnamed: str = "it has a shape without a class; name the class there"  # if a label is missing

    def __iter__(self) -> Iterator[AnnotatedImage]:
        log = Log()
        yield from self.read(log)
        if log.problems:
            raise ProblemsError(str(self.source), log.problems)


LINE_WIDTH = 3.0  # pixels
POINT_RADIUS = 0.14
"""Radius of the disc of a point, as a share of the shorter side of the image."""


def rasterize(shapes: Sequence[Shape], width: int, height: int) -> Pixels:
    """(height, width) uint8 map of shapes; where they overlap, it has the largest value.

    A pixel is inside if its center is; a center on an edge belongs to the shape on its right or
    below.
    """
    canvas = np.zeros((height, width), np.uint8)
    for shape in shapes:
        if not isinstance(shape, Mask):
            for ring in _rings(shape, POINT_RADIUS * min(width, height)):
                fill(canvas, ring)
            continue
        high, wide = shape.pixels.shape
        rows = slice(max(shape.y, 0), max(min(shape.y + high, height), 0))
        columns = slice(max(shape.x, 0), max(min(shape.x + wide, width), 0))
        if rows.start < rows.stop and columns.start < columns.stop:
            part = shape.pixels[
                rows.start - shape.y : rows.stop - shape.y,
                columns.start - shape.x : columns.stop - shape.x,
            ]
            canvas[rows, columns] = np.maximum(canvas[rows, columns], part)
    return canvas


def fill(canvas: Pixels, ring: Floats) -> None:
    """Set the pixels to 255 whose centers are inside a ring by the even-odd rule, in place.

    Each edge crosses the rows whose centers lie in [top, bottom); a row is inside from an odd
    crossing to the next.
    """
    height, width = canvas.shape
    ring = np.clip(ring, -1e9, 1e9)  # differences of the coordinates stay finite
    ends = np.stack([ring, np.roll(ring, -1, axis=0)], axis=1)
    down = ends[:, 0, 1] <= ends[:, 1, 1]
    (left, right), (top, bottom) = np.where(down[:, None, None], ends, ends[:, ::-1]).T
    first, last = _first_pixel(top, height), _first_pixel(bottom, height)
    count = last - first
    if not count.any():
        return
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(count) - count), count)
    at = left[edge] + (row + 0.5 - top[edge]) * (right - left)[edge] / (bottom - top)[edge]
    column = _first_pixel(at, width)
    y, x = int(row.min()), int(column.min())
    high, wide = int(row.max()) - y + 1, int(column.max()) - x + 1
    crossings = np.bincount((row - y) * wide + column - x, minlength=high * wide)
    inside = np.cumsum(crossings.reshape(high, wide), axis=1)[:, :-1] % 2 == 1
    canvas[y : y + high, x : x + wide - 1][inside] = 255


def _first_pixel(at: Floats, count: int) -> NDArray[np.int64]:
    """Index of the first pixel whose center is not before a coordinate, from 0 to count."""
    return np.clip(np.ceil(at - 0.5), 0, count).astype(np.int64)


def _rings(shape: Shape, point_radius: float) -> list[Floats]:
    """Rings whose union is a shape."""
    match shape:
        case Polygon(rings):
            return list(rings)
        case Box(x, y, w, h, rotation):
            corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float64)
            return [rotate(corners, (x + w / 2, y + h / 2), rotation) if rotation else corners]
        case Ellipse(x, y, radius_x, radius_y, rotation):
            return [_ellipse(x, y, radius_x, radius_y, rotation)]
        case Points(points):
            return [_ellipse(x, y, point_radius, point_radius) for x, y in points.tolist()]
        case Polyline(points):  # with round joints and ends
            radius = LINE_WIDTH / 2
            parts = [_ellipse(x, y, radius, radius) for x, y in points.tolist()]
            for start, end in pairwise(points):
                if length := float(np.hypot(*(end - start))):
                    side = (end - start)[::-1] * [-radius / length, radius / length]
                    parts.append(np.array([start + side, end + side, end - side, start - side]))
            return parts
        case Mask():
            raise TypeError("a mask has no rings")


def rotate(points: Floats, pivot: tuple[float, float], degrees: float) -> Floats:
    """Points turned clockwise (as y points downward) about a pivot."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: Floats = (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return turned


def _ellipse(x: float, y: float, radius_x: float, radius_y: float, rotation: float = 0) -> Floats:
    """Ring whose chords are at most 0.01 pixels away from the ellipse."""
    largest = min(max(radius_x, radius_y, 0.01), 1e6)
    step = math.acos(1 - min(0.01 / largest, 1.0)) * 2
    angles = np.linspace(0, 2 * math.pi, max(12, math.ceil(2 * math.pi / step)), endpoint=False)
    points = np.stack([radius_x * np.cos(angles) + x, radius_y * np.sin(angles) + y], axis=1)
    return rotate(points, (x, y), rotation) if rotation else points


def wrong_with(shape: Shape, width: int, height: int) -> str:
    """What is wrong with a shape on an image of a size, or ""."""
    name = type(shape).__name__.lower()
    match shape:
        case Box(_, _, w, h) | Ellipse(_, _, w, h):
            empty = w <= 0 or h <= 0
        case Polygon(rings):
            empty = not rings or min(map(len, rings)) < 3
        case Polyline(points) | Points(points):
            empty = len(points) < (2 if isinstance(shape, Polyline) else 1)
        case Mask(pixels):
            empty = not pixels.any()
    if empty:
        return f"the {name} is empty"
    if isinstance(shape, Mask):
        mask = shape.cropped()
        height_, width_ = mask.pixels.shape
        corners = np.array([[mask.x, mask.y], [mask.x + width_, mask.y + height_]])
    else:  # of a point the place itself, without its disc
        corners = np.concatenate(_rings(shape, 0))
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    if not math.isfinite(left + top + right + bottom):
        return f"the {name} has a coordinate that is not a finite number"
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        place = f"{left:g}, {top:g} to {right:g}, {bottom:g}"
        return f"the {name} lies outside the image of {width}×{height} ({place})"
    return ""


def outline(mask: NDArray[np.bool_]) -> list[list[Floats]]:
    """Outer ring and holes, each (n, 2), of the regions of a mask; corners connect its pixels.

    The rings run halfway between the centers of pixels inside and outside, so that `fill` gives the
    mask again, exactly.
    """
    padded = np.pad(mask, 1).astype(np.float64)
    # Below one half, pixels that share a corner are connected.
    lines = contourpy.contour_generator(z=padded, fill_type="OuterOffset").filled(0.49, 2)
    regions = []
    for points, offsets in zip(*lines, strict=True):
        halves = np.rint(points * 2) / 2 - 0.5
        regions.append([_corners(halves[a : b - 1]) for a, b in pairwise(offsets)])
    return regions


def _corners(ring: Floats) -> Floats:
    """Ring without the points that lie on the line through their neighbors."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    corners: Floats = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return corners


def joined(rings: list[Floats]) -> Floats:
    """One ring of a region with holes, each joined by a cut without width, there and back."""
    ring, *holes = rings
    # From left to right: a cut to the left then meets the outer ring or a hole joined before.
    for hole in sorted(holes, key=lambda one: float(one[:, 0].min())):
        hole = np.roll(hole, -int(hole[:, 0].argmin()), axis=0)
        distance = np.hypot(*(ring - hole[0]).T)
        distance[ring[:, 0] > hole[0, 0]] += 1e9
        place = int(distance.argmin())
        ring = np.concatenate([ring[: place + 1], hole, hole[:1], ring[place:]])
    return ring
