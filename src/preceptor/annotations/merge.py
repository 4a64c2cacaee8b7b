"""Maps of several annotators of an image: one file for each, and one merged for the image."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from preceptor.annotations.files import safe_name
from preceptor.annotations.shapes import Pixels, RasterOptions, soften
from preceptor.errors import InputError

MAPS, ANNOTATORS = "maps", "annotators"


def mean(maps: Pixels) -> Pixels:
    """Mean of the maps: the share of annotators who marked a pixel."""
    total = maps.sum(axis=0, dtype=np.uint32)
    rounded: Pixels = ((2 * total + len(maps)) // (2 * len(maps))).astype(np.uint8)
    return rounded


def majority(maps: Pixels) -> Pixels:
    """255 where more than half of the annotators marked a pixel (a value of 128 or more)."""
    return np.where(2 * (maps >= 128).sum(axis=0) > len(maps), 255, 0).astype(np.uint8)


def anyone(maps: Pixels) -> Pixels:
    """Largest value: the region that at least one annotator marked."""
    largest: Pixels = maps.max(axis=0)
    return largest


MERGES: dict[str, Callable[[Pixels], Pixels]] = {
    "mean": mean,
    "majority": majority,
    "any": anyone,
}
"""Functions of maps (annotators, height, width) by the name of `--merge`; of one map, each returns
a map of the same region."""


def annotator_folders(names: Sequence[str]) -> dict[str, str]:
    """Folder of each annotator by name; no folders if there is only one.

    Example:
        >>> annotator_folders(["", "a/ann", "ann"])
        {'a/ann': 'ann', 'ann': 'ann-2'}
    """
    named = [name for name in names if name]
    folders: dict[str, str] = {}
    for name in named if len(named) > 1 else ():
        folder, number = safe_name(name), 2
        while folder.casefold() in {one.casefold() for one in folders.values()}:
            folder, number = f"{safe_name(name)}-{number}", number + 1
        folders[name] = folder
    return folders


def check_merge(merge: str, names: Sequence[str]) -> None:
    """Check a rule of merging."""
    if merge not in MERGES and merge not in names:
        known = ", ".join([*MERGES, *filter(None, names)])
        raise InputError(f"--merge {merge!r}: neither a rule nor an annotator; known: {known}")


class MapDrawer:
    """Maps of one image after the other: one for each annotator, merged into one for the image.

    Args:
        folder: Output folder.
        folders: Folder of each annotator; empty if there is only one.
        merge: Name of a rule, or of an annotator whose maps alone are used.
        raster: How shapes become a map.
    """

    def __init__(
        self, folder: Path, folders: Mapping[str, str], merge: str, raster: RasterOptions
    ) -> None:
        self.folder, self.folders, self.merge = folder, folders, merge
        # A merge cuts maps at one half, which a blurred map need not reach: it is before the blur.
        self._soft, self.before_blur = raster.soft, replace(raster, soft=0.0)
        self._taken: set[str] = set()

    def save(self, maps: Mapping[str, Pixels], image: str) -> str:
        """Write the maps of the annotators of an image, and the merged one."""
        # With the suffix of the image if two maps would have one name.
        name, number = f"{posixpath.splitext(image)[0]}.png", 1
        while name.casefold() in self._taken:
            name = f"{image}{'' if number == 1 else f'-{number}'}.png"
            number += 1
        self._taken.add(name.casefold())
        for person, pixels in maps.items():
            if person in self.folders:
                self._write(f"{ANNOTATORS}/{self.folders[person]}/{name}", pixels)
        if self.merge not in MERGES:
            merged = maps.get(self.merge)
        elif len(maps) == 1:
            merged = next(iter(maps.values()))
        else:
            merged = MERGES[self.merge](np.stack(list(maps.values())))
        if merged is None or not merged.any():
            return ""
        self._write(f"{MAPS}/{name}", merged)
        return f"{MAPS}/{name}"

    def _write(self, name: str, pixels: Pixels) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        softened = soften(pixels, self._soft) if self._soft else pixels
        Image.fromarray(softened).save(path, "PNG", compress_level=1)
