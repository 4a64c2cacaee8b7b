"""Images that are to be marked: rows of a manifest, or files of a folder.

Nothing is decoded and torch is not imported; files that are missing or damaged are found when they
are shown.
"""

# os.path and not Path: a hundred thousand files are looked up.
# ruff: noqa: PTH100, PTH118, PTH122

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from preceptor.data.images import image_suffixes
from preceptor.errors import InputError, is_control
from preceptor.runtime.checksums import file_digest
from preceptor.runtime.walk import walk


@dataclass(frozen=True)
class Row:
    """One image.

    Args:
        path: Path from `Source.root`, or absolute if it is not below.
        label, split, source: As in the manifest; "" = unknown.
        saliency: Absolute path of the human map, or "".
        annotated: Whether a person examined it.
    """

    path: str
    label: str = ""
    split: str = ""
    source: str = ""
    saliency: str = ""
    annotated: bool = False


@dataclass(frozen=True)
class Source:
    """Manifest or folder.

    Args:
        place: Absolute path of the manifest or the folder.
        root: Folder that relative paths start from.
        is_folder: Whether it is a folder.
        digest: Hash of the table, or of the names of the files.
        left_out: Number of image files of a folder that are left out, since their names are not
            UTF-8 or have control characters.
    """

    place: Path
    root: Path
    is_folder: bool
    digest: str
    left_out: int = 0

    @property
    def database(self) -> Path:
        """Database beside it, by default."""
        name = self.place.name if self.is_folder else self.place.stem
        return self.place.with_name(f"{name}.label.sqlite")


def find_source(path: Path) -> Source:
    """Manifest or folder at a path, with its hash.

    Raises:
        InputError: There is neither.
    """
    place = Path(os.path.abspath(path))
    if place.is_dir():
        digest = hashlib.blake2b(digest_size=16)
        names, left_out = _files(place)
        for name in names:
            digest.update(os.fsencode(name) + b"\0")
        return Source(place, place, True, digest.hexdigest(), left_out)
    if not place.is_file():
        raise InputError(f"{path}: there is no such manifest or folder; correct the path")
    if place.suffix.lower() in image_suffixes():
        raise InputError(f"{path}: it is one image; name its folder")
    return Source(place, place.parent, False, file_digest(place))


def folder_rows(source: Source) -> list[Row]:
    """One row per image file of a folder.

    Raises:
        InputError: The folder has no images.
    """
    rows = [Row(name) for name in _files(source.place)[0]]
    if not rows and source.left_out:
        raise InputError(
            f"{source.place}: the names of its {source.left_out:,} images are not UTF-8, or have "
            "control characters; rename them"
        )
    if not rows:
        raise InputError(f"{source.place}: there is no image in it; name a folder of images")
    return rows


def _files(folder: Path) -> tuple[list[str], int]:
    """Image files below a folder, as paths from it, sorted, and the number of those whose names
    cannot be stored; hidden ones are left out.
    """
    found, left_out = [], 0
    suffixes = image_suffixes()
    for base, _, names in walk(str(folder)):
        inside = os.path.relpath(base, folder)
        for name in names:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in suffixes:
                continue
            path = name if inside == "." else os.path.join(inside, name)
            if any(map(is_control, path)):
                left_out += 1
            else:
                found.append(path)
    return sorted(found), left_out
