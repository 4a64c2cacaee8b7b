"""Importer of class folders with images, and a parallel tree of masks."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.mask_pairs import (
    are_of_two_levels,
    lone_masks,
    mask_pairs,
    masks_by_image,
)
from preceptor.data.importers.mask_records import MaskRecords
from preceptor.data.importers.shapes import AnnotatedImage, ImportedAnnotations, Log
from preceptor.data.importers.split_words import split_of
from preceptor.errors import InputError


def read_folders(source: Path | str, masks: Path | str | None = None) -> ImportedAnnotations:
    """Class folders of images, in folders of splits or not: `train/crack/a.png`, `crack/a.png`.

    The class is the last folder that does not name a split. A mask lies at the same place in the
    folder of masks, with any suffix; in the same folder, `a_mask.png` is that of `a.png`.

    Args:
        source: Folder with the class folders.
        masks: Folder of the masks, or None.

    Raises:
        InputError: Something is not a folder, or has no image.
    """
    root = Path(source)
    other = None if masks is None else Path(masks)
    mixed = other is not None and os.path.realpath(other) == os.path.realpath(root)
    names = ImageFiles(root, None if mixed else other).names
    if not names:
        raise InputError(f"{root}: there is no image in it; name the folder of the class folders")
    pairs = mask_pairs(names)
    own = [*pairs, *lone_masks(names, pairs)] if mixed else []
    mask_names = ImageFiles(other).names if other is not None and not mixed else own
    if mixed:
        names = [name for name in names if name not in set(own)]

    def read(log: Log) -> Iterator[AnnotatedImage]:
        if pairs and not mixed:
            _check_pairs(root, pairs, log)
        given = masks_by_image(pairs) if mixed else _by_place(mask_names, names, log)
        records = MaskRecords(root if other is None else other, mask_names, {}, log)
        for name in names:
            parts = PurePosixPath(name).parts[:-1]
            label = next((part for part in reversed(parts) if not split_of(part)), "")
            split = next((split for part in reversed(parts) if (split := split_of(part))), "")
            if not label:
                log.problem(name, "it lies in no class folder", "move it into one")
                continue
            if name not in given:
                yield AnnotatedImage(name, None, (), (label,), split, of=name)
                continue
            record = records.joined(given[name], label)
            if record is not None:
                yield replace(record, name=name, labels=(label,), split=split, of=name)
        records.check_levels("save masks of 0 and 255")
        used = {mask for several in given.values() for mask in several}
        for mask in mask_names:
            if mask not in used:
                log.problem(mask, f"there is no image at its place in {root}", "remove the mask")

    return ImportedAnnotations(
        "folders",
        root,
        read,
        annotators=(),
        count=len(names),
        masks=None if mixed else other,
        mask_files=frozenset(own),
    )


def _by_place(masks: Sequence[str], images: Sequence[str], log: Log) -> dict[str, list[str]]:
    """Mask at the place of each image, whatever its suffix."""
    by_place: dict[str, list[str]] = {}
    for mask in masks:
        found = by_place.setdefault(PurePosixPath(mask).with_suffix("").as_posix(), [])
        if found:
            log.problem(mask, f"{found[0]} has the same place", "keep one of them")
        found.append(mask)
    places = {image: PurePosixPath(image).with_suffix("").as_posix() for image in images}
    return {image: by_place[place] for image, place in places.items() if place in by_place}


def _check_pairs(root: Path, pairs: dict[str, str], log: Log) -> None:
    """Note files that are named as masks of others, as a problem if they look so."""
    first = next(iter(pairs))
    if are_of_two_levels([root / mask for mask in pairs]):
        log.problem(
            f"{len(pairs):,} files (such as {first})",
            f"they are masks of images beside them ({pairs[first]})",
            f"add --masks {shlex.quote(str(root))}, or move them out of the folder",
        )
    else:
        log.note(
            f"images are named as masks of others, such as {first}; if they are masks, give "
            "--masks the folder of the images",
            len(pairs),
        )
