"""Maps of imported annotations: one per annotator, merged into the map of the image."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from preceptor.data.importers.frames import ImageFrame
from preceptor.data.importers.image_files import safe_name
from preceptor.data.importers.map_files import MapFiles
from preceptor.data.importers.rasterize import RasterOptions, rasterize, soften
from preceptor.data.importers.shapes import ImportedAnnotations, Log, Pixels, Shape
from preceptor.data.merge_annotators import MERGES
from preceptor.errors import InputError

MAPS, ANNOTATORS = "maps", "annotators"


def find_annotators(imported: ImportedAnnotations) -> list[str]:
    """Sorted names of the annotators of a source; "" stands for nobody in particular.

    If the reader does not know them, this is a pass over the whole source.
    """
    if imported.annotators is not None:
        return sorted({"", *imported.annotators})
    found = {""}
    for record in imported.read(Log()):
        found.update(record.annotators)
        found.update(one.annotator for one in record.annotations if not one.prediction)
    return sorted(found)


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
    """Check a rule of merging.

    Raises:
        InputError: It is neither a rule nor an annotator.
    """
    if merge not in MERGES and merge not in names:
        known = ", ".join([*MERGES, *filter(None, names)])
        raise InputError(f"--merge {merge!r}: neither a rule nor an annotator; known: {known}")


class MapDrawer:
    """Drawing of the maps of one image after the other.

    Args:
        files: Writer of the files.
        folders: Folder of each annotator; empty if there is only one.
        merge: Name of a rule, or of an annotator whose maps alone are used.
        raster: How shapes become a map.
    """

    def __init__(
        self, files: MapFiles, folders: Mapping[str, str], merge: str, raster: RasterOptions
    ) -> None:
        self.files, self.folders, self.merge, self.raster = files, folders, merge, raster
        # A merge cuts maps at one half, which a blurred map need not reach: it is before the blur.
        self._soft = raster.soft if raster.shape == "soft" else 0.0
        self._before = replace(raster, shape="filled") if self._soft else raster
        self._taken: set[str] = set()

    def draw(self, by_person: Mapping[str, Sequence[Shape]], frame: ImageFrame, image: str) -> str:
        """Write the maps of an image.

        Args:
            by_person: Shapes of each annotator who looked at the image.
            frame: Pixels of the coordinates.
            image: Path of the image from the folder of images.

        Returns:
            Path of the merged map from the output folder; "" if it is empty.
        """
        # Of several annotators, those who found nothing have an empty map of their own.
        if not any(by_person.values()) and not (self.folders and by_person):
            return ""
        maps = {
            person: frame.upright(rasterize(shapes, frame.width, frame.height, self._before))
            for person, shapes in by_person.items()
        }
        return self.save(maps, image)

    def save(self, maps: Mapping[str, Pixels], image: str) -> str:
        """Write the maps of the annotators of an image, and the merged one.

        Args:
            maps: uint8 map of each annotator who looked at the image, of its upright size, before
                a blur.
            image: Path of the image from the folder of images.

        Returns:
            Path of the merged map from the output folder; "" if it is empty.
        """
        name = self._name(image)
        for person, pixels in maps.items():
            if person in self.folders:
                self.files.save(
                    f"{ANNOTATORS}/{self.folders[person]}/{name}", self._softened(pixels)
                )
        if self.merge not in MERGES:
            merged = maps.get(self.merge)
        elif len(maps) == 1:
            merged = next(iter(maps.values()))
        else:
            merged = MERGES[self.merge](np.stack(list(maps.values())))
        if merged is None or not merged.any():
            return ""
        self.files.save(f"{MAPS}/{name}", self._softened(merged))
        return f"{MAPS}/{name}"

    def _softened(self, pixels: Pixels) -> Pixels:
        return soften(pixels, self._soft) if self._soft else pixels

    def _name(self, image: str) -> str:
        """Name of the map of an image; with the suffix of the image if two would have one name."""
        name = f"{posixpath.splitext(image)[0]}.png"
        number = 1
        while name.casefold() in self._taken:
            name = f"{image}{'' if number == 1 else f'-{number}'}.png"
            number += 1
        self._taken.add(name.casefold())
        return name
