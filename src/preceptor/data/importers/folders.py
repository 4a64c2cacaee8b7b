"""Importer of class folders with images, and a parallel tree of masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from preceptor.data.importers.gray_levels import GrayLevels
from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.masks import mask_record
from preceptor.data.importers.shapes import AnnotatedImage, ImportedAnnotations, Log
from preceptor.data.importers.split_words import split_of
from preceptor.errors import InputError


def read_folders(source: Path | str, masks: Path | str | None = None) -> ImportedAnnotations:
    """Class folders of images, in folders of splits or not: `train/crack/a.png`, `crack/a.png`.

    The class is the last folder that does not name a split. A mask lies at the same place in the
    folder of masks, with any suffix.

    Args:
        source: Folder with the class folders.
        masks: Folder of the masks, or None.

    Raises:
        InputError: Something is not a folder, or has no image.
    """
    root = Path(source)
    files = ImageFiles(root, None if masks is None else Path(masks))
    if not files.names:
        raise InputError(f"{root}: there is no image in it; name the folder of the class folders")
    found = ImageFiles(Path(masks)) if masks is not None else None

    def read(log: Log) -> Iterator[AnnotatedImage]:
        by_place: dict[str, str] = {}
        for mask in found.names if found is not None else ():
            place = PurePosixPath(mask).with_suffix("").as_posix()
            if place in by_place:
                log.problem(mask, f"{by_place[place]} has the same place", "keep one of them")
            by_place[place] = mask
        levels = GrayLevels()
        for name in files.names:
            parts = PurePosixPath(name).parts[:-1]
            label = next((part for part in reversed(parts) if not split_of(part)), "")
            split = next((split for part in reversed(parts) if (split := split_of(part))), "")
            if not label:
                log.problem(name, "it lies in no class folder", "move it into one")
                continue
            place = PurePosixPath(name).with_suffix("").as_posix()
            if place not in by_place or found is None:
                yield AnnotatedImage(name, None, (), (label,), split, of=name)
                continue
            mask = by_place.pop(place)
            record = mask_record(found.folder / mask, mask, label, {}, levels, log)
            if record is not None:
                yield AnnotatedImage(
                    name, record.size, record.annotations, (label,), split, True, of=name
                )
        levels.check(log, "save masks of 0 and 255")
        for mask in by_place.values():
            log.problem(mask, f"there is no image at its place in {root}", "remove the mask")

    return ImportedAnnotations(
        "folders",
        root,
        read,
        annotators=(),
        count=len(files.names),
        masks=None if found is None else found.folder,
    )
