"""Annotations as read from a file: shapes in pixels of the source image, and who drew them.

All coordinates are in pixels with the origin at the upper left corner of the image, x to the right
and y downward: the first pixel covers 0 ≤ x < 1, 0 ≤ y < 1, and its center is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import Problem, ProblemsError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
MAX_PIXELS = 178_956_970
"""Largest number of pixels of a mask, that of Pillow's check for decompression bombs."""
Frame = Literal["upright", "stored"]
"""Pixels that coordinates refer to: those of the image turned by its EXIF orientation, or those of
the file as stored."""


@dataclass(frozen=True, slots=True)
class Box:
    """Rectangle.

    Args:
        x, y: Upper left corner before the rotation.
        width, height: Sides.
        rotation: Degrees clockwise about the center of the box.
    """

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """Closed rings.

    Args:
        rings: Arrays of shape (n, 2), x and y; the last point is joined to the first.
        rule: Inside of several rings: `even-odd` (a ring in a ring is a hole) or `union` (each
            ring is a part). A single ring that crosses itself is filled by even-odd.
    """

    rings: tuple[Floats, ...]
    rule: Literal["even-odd", "union"] = "even-odd"


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Ellipse.

    Args:
        x, y: Center.
        radius_x, radius_y: Semi-axes before the rotation.
        rotation: Degrees clockwise about the center.
    """

    x: float
    y: float
    radius_x: float
    radius_y: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Polyline:
    """Open line.

    Args:
        points: Array of shape (n, 2).
        width: Width in pixels; None = the width of the reader's user.
    """

    points: Floats
    width: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Single points.

    Args:
        points: Array of shape (n, 2).
        radius: Radius of each in pixels; None = the radius of the reader's user.
        weights: (n,) weights above 0, such as durations; None = equal.
    """

    points: Floats
    radius: float | None = None
    weights: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Part of a grayscale map.

    Args:
        pixels: uint8 of shape (height, width); 0 = outside, 255 = inside.
        x, y: Column and row of its first pixel in the image.
    """

    pixels: Pixels
    x: int = 0
    y: int = 0


Shape = Box | Polygon | Ellipse | Polyline | Points | Mask


@dataclass(frozen=True, slots=True)
class Annotation:
    """One shape.

    Args:
        shape: Geometry.
        label: Class, or "".
        annotator: Person, or "" if the file names nobody.
        created: Time as the file states it, or "".
        prediction: Whether a model made it; it is then no annotation of a person.
        where: Place in the file, for messages ("annotations[3]").
    """

    shape: Shape
    label: str
    annotator: str = ""
    created: str = ""
    prediction: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its shapes.

    Args:
        name: Name as the file states it; `a.*` if it does not state the suffix.
        size: (width, height) as the file states it, or None.
        annotations: Shapes of all annotators.
        labels: Classes of the whole image as the file states them; more than one are a problem
            unless a table of labels decides.
        split: Split as the file states it, or "".
        examined: Whether a person looked at the image; None = the file does not say. It matters
            where there is no shape.
        annotators: Persons who looked at the image; those of the shapes need not be repeated.
        seconds: Time that was spent on the image, or None.
        embedded: Content of an image file that the annotation file contains, or None.
        where: Place in the file, for messages ("images[3]").
        of: File, if there are several.
        other_name: Name that is looked for if there is no image of this name, or "".
        upright: Whether the shapes are upright, whatever the rule for coordinates is.
    """

    name: str
    size: tuple[int, int] | None
    annotations: tuple[Annotation, ...]
    labels: tuple[str, ...] = ()
    split: str = ""
    examined: bool | None = None
    annotators: tuple[str, ...] = ()
    seconds: float | None = None
    embedded: bytes | None = field(default=None, repr=False)
    where: str = ""
    of: str = ""
    other_name: str = ""
    upright: bool = False


class Log:
    """Problems and notes of one pass over a file."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._notes: dict[str, int] = {}

    def problem(self, where: str, what: str, fix: str) -> None:
        """Note a problem; the import fails at the end of the pass."""
        self.problems.append(Problem(where, what, fix))

    def error(self, where: str, error: Exception, fix: str, path: Path | None = None) -> None:
        """Note an error of the form "what; fix" as a problem.

        Args:
            where: Place in the source.
            error: The error.
            fix: What to do if the message does not say it.
            path: File that the message begins with; `where` names it already.
        """
        what, mark, stated = str(error).removeprefix(f"{path}: ").rpartition("; ")
        self.problem(where, what if mark else stated, stated if mark else fix)

    def note(self, text: str, count: int = 1) -> None:
        """Count something that was read in a way that a user has to know."""
        self._notes[text] = self._notes.get(text, 0) + count

    @property
    def notes(self) -> dict[str, int]:
        """Notes with their counts, in order of appearance."""
        return dict(self._notes)


@dataclass(frozen=True)
class ImportedAnnotations:
    """Annotations of one source; each iteration reads the images from the start.

    Args:
        format: Name of the format ("coco").
        source: File or folder.
        read: Function that yields the images, one record each, and notes problems in a log.
        classes: Classes that the file declares; empty = it declares none.
        annotators: Persons of the whole source; None = they are known after a pass.
        frame: Pixels of the coordinates where the stated size does not decide it: the rule of the
            tool that wrote the file.
        count: Number of images, if it is known without a pass.
        whole_folder: Whether images that the source does not mention belong to it, without shapes.
        masks: Folder whose image files are masks and no images, wherever it lies; None = there is
            none.
        mask_files: Paths of masks from the folder of images, if they are in it among the images.

    Raises:
        ProblemsError: At the end of an iteration, if anything in the source is wrong.
    """

    format: str
    source: Path
    read: Callable[[Log], Iterator[AnnotatedImage]] = field(repr=False)
    classes: Sequence[str] = ()
    annotators: Sequence[str] | None = None
    frame: Frame = "upright"
    count: int | None = None
    whole_folder: bool = False
    masks: Path | None = None
    mask_files: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[AnnotatedImage]:
        log = Log()
        yield from self.read(log)
        if log.problems:
            raise ProblemsError(str(self.source), log.problems)

    def notes(self) -> dict[str, int]:
        """Notes of a pass over the whole source, with their counts."""
        log = Log()
        for _ in self.read(log):
            pass
        return log.notes
