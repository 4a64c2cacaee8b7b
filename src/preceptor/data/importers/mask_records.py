"""Records of mask files: the shapes that a mask image has, and its image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import ImageError, decode_map, stored_size
from preceptor.data.importers.class_masks import (
    cropped,
    is_black_on_transparent,
    is_deep,
    is_gray,
    levels_of,
    masks_by_value,
    open_mask,
)
from preceptor.data.importers.color_names import Color
from preceptor.data.importers.gray_levels import GrayLevels
from preceptor.data.importers.mask_pairs import without_ending
from preceptor.data.importers.shapes import AnnotatedImage, Annotation, Log, Mask
from preceptor.data.importers.split_words import split_of

_BLACK, _VOID = (0, 0, 0), (224, 224, 192)
_UNIFORM = "save what is outside as 0 and what is inside as 255"


class MaskRecords:
    """Records of the mask files of a folder.

    Args:
        root: Folder.
        names: Paths of all masks, from the folder.
        colors: Classes by color; empty = gray masks have no numbers of classes.
        log: Collects the problems.
    """

    def __init__(
        self, root: Path, names: Sequence[str], colors: Mapping[Color, str], log: Log
    ) -> None:
        self.root, self.names, self.colors, self.log = root, names, colors, log
        self._levels = GrayLevels()
        self._uniform: dict[float, bool | None] = {}
        self._gray: list[str] = []
        self._colored = ""

    def joined(self, masks: Sequence[str], label: str) -> AnnotatedImage | None:
        """Image of one or several mask files; None after a problem.

        Args:
            masks: Paths of the files from the folder.
            label: Class of gray masks.
        """
        records = [record for of in masks if (record := self.record(of, label)) is not None]
        for one in records[1:]:
            if one.size != records[0].size:
                sizes = ["×".join(map(str, of.size or ())) for of in (one, records[0])]
                what = f"it is {sizes[0]}, the other mask of its image {sizes[1]}"
                self.log.problem(one.of, what, "correct it")
        if not records:
            return None
        shapes = tuple(shape for one in records for shape in one.annotations)
        upright = any(one.upright for one in records)
        return replace(records[0], annotations=shapes, upright=upright)

    def record(self, of: str, label: str) -> AnnotatedImage | None:
        """Image of a mask file; None after a problem.

        Args:
            of: Path of the file from the folder.
            label: Class of gray masks.
        """
        path = self.root / of
        opened = open_mask(path)
        if isinstance(opened, str):
            self.log.problem(of, opened, "replace or remove the file")
            return None
        try:
            shapes = tuple(self._shapes(opened, of, label))
            turned = stored_size(path)[1] != 1
        except (ValueError, ImageError) as error:
            self.log.error(of, error, "save it as PNG", path)
            return None
        stem = PurePosixPath(of).with_suffix("")
        short = without_ending(stem)
        splits = [split for part in stem.parts[:-1] if (split := split_of(part))]
        return AnnotatedImage(
            f"{stem}.*",
            opened.size,
            shapes,
            split=splits[-1] if splits else "",
            examined=True,
            of=of,
            other_name="" if short == stem else f"{short}.*",
            upright=turned,
        )

    def check_levels(self, fix: str) -> None:
        """Note a problem if the levels of the gray masks are numbers, after the last mask.

        Args:
            fix: What to do if they are numbers of classes.
        """
        self._levels.check(self.log, fix)

    def check_colors(self) -> None:
        """Note a problem if some masks have colors and others are gray, after the last mask."""
        if self._colored and self._gray:
            self.log.problem(
                f"{len(self._gray):,} gray masks (such as {self._gray[0]})",
                f"others have colors (such as {self._colored}), so that the class of white is "
                "unknown",
                "name the colors in labelmap.txt in the folder of the masks (lines "
                "background:0,0,0:: and crack:255,255,255::), or import them from two folders",
            )

    def _shapes(self, image: Image.Image, of: str, label: str) -> Iterator[Annotation]:
        """Shapes of a mask.

        Raises:
            ValueError, ImageError: It has too many colors or unknown ones, or strokes that are
                taken for background.
        """
        unnamed = self.colors.get(_BLACK, "background") == "background"
        if unnamed and is_black_on_transparent(image):
            raise ValueError(
                "it is black where it is visible and transparent elsewhere, and black is outside; "
                "draw in white"
            )
        if not self.colors and is_gray(image):
            mask = self._gray_mask(image, of)
            if mask is not None:
                self._gray.append(of)
                yield Annotation(mask, label)
            return
        for color, mask in masks_by_value(image):
            name = self.colors.get(color)
            if name == "background" or (name is None and color in (_BLACK, _VOID)):
                continue
            if name is None and self.colors:
                raise ValueError(f"the color {color} is of no class; add it to labelmap.txt")
            self._colored = self._colored or of
            yield Annotation(mask, name or "#{:02x}{:02x}{:02x}".format(*color))

    def _gray_mask(self, image: Image.Image, of: str) -> Mask | None:
        """Mask of a gray image as stored, or None if nothing is inside."""
        pixels = levels_of(image)
        stored = np.unique(pixels)
        levels: NDArray[Any] = pixels
        values, largest, middle = stored, 255.0, 128.0
        if is_deep(image):  # read as maps are
            levels = decode_map(self.root / of)
            # Divided by the largest: as levels of 255, 0 and 1 or numbers of classes would be 0.
            values, largest, middle = np.unique(levels), float(levels.max()), 0.5
        self._levels.add(pixels, stored, of)
        if len(values) > 2:
            return cropped(np.rint(levels * (255 / largest)).astype(np.uint8))
        if values[-1] == 0:
            return None
        if len(values) == 1 and values[0] < middle and not self._is_inside(float(stored[0]), of):
            return None
        return cropped(np.where(levels == values[-1], 255, 0).astype(np.uint8))

    def _is_inside(self, level: float, of: str) -> bool:
        """Whether the only level of a mask, which is nearer to black, is that of a class.

        In a folder of masks of 0 and 1, a mask of ones is inside everywhere.

        Raises:
            ValueError: The other masks do not say it.
        """
        if level not in self._uniform:
            self._uniform[level] = self._meaning(level)
        inside = self._uniform[level]
        if inside is None:
            raise ValueError(
                f"all of its pixels are {level:g}, which no other mask has as its lower or upper "
                f"level; {_UNIFORM}"
            )
        return inside

    def _meaning(self, level: float) -> bool | None:
        """Whether a level is inside in the other masks; None if no mask with another level has it
        as its lowest level, or as the upper one of two.
        """
        for name in self.names:
            opened = open_mask(self.root / name)
            if isinstance(opened, str) or not is_gray(opened):
                continue
            levels = np.unique(levels_of(opened))
            if len(levels) > 1 and levels[0] == level:
                return False
            if len(levels) == 2 and levels[1] == level:
                return True
        return None
