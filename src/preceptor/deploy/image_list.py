"""Images that are named by files, folders and manifests."""

# os.path and not Path: a million files are listed.
# ruff: noqa: PTH118, PTH122

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from preceptor.data.checks import Findings, absolute, check_names, read_table, text
from preceptor.data.images import image_suffixes
from preceptor.errors import InputError
from preceptor.utils.files import walk

MANIFESTS = (".csv", ".tsv", ".parquet", ".pq")
"""Suffixes of manifests."""
MAPS_MARK = ".preceptor-maps"
"""Name of the empty file by which a folder of written maps is recognized."""


class ListedImage(NamedTuple):
    """Image of a list."""

    name: str  # in the output: the path as given, as in the manifest, or below the given folder
    path: str  # or its location

    @classmethod
    def at(cls, path: str) -> ListedImage:
        """Image that is named by its path."""
        return cls(path, path)


class ImageList:
    """Images of several inputs, in their order; folders are listed in the order of their names.

    An input is an image file, a folder (all images below it, but for folders with a file
    `MAPS_MARK`), or a manifest (CSV or Parquet).
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self._parts = [_part(name) for name in inputs]

    def __iter__(self) -> Iterator[ListedImage]:
        for part in self._parts:
            if isinstance(part, str):
                yield from _images_below(part)
            else:
                yield from part

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def left_out(self) -> Counter[str]:
        """Numbers of files in the folders that are no images, by suffix, without hidden ones."""
        folders = [part for part in self._parts if isinstance(part, str)]
        names = (name for part in folders for name in _files_below(part))
        return Counter(_suffix(name) for name in names if _suffix(name) not in image_suffixes())


def _part(name: str) -> str | list[ListedImage]:
    """A folder, or images."""
    if os.path.isdir(name):  # noqa: PTH112
        if next(_images_below(name), None) is None:
            known = " ".join(sorted(image_suffixes()))
            raise InputError(f"{name}: the folder has no images ({known})")
        return name
    if not os.path.lexists(name):
        raise InputError(f"{name}: there is no such file; correct it")
    return _rows(Path(name)) if _suffix(name) in MANIFESTS else [ListedImage.at(name)]


def _rows(file: Path) -> list[ListedImage]:
    findings = Findings(str(file))
    raw = read_table(file, findings)
    findings.raise_if_any()
    if "path" not in raw:
        raise InputError(f"{file}: it has no column path; rename the column of the images to path")
    names = written = text(raw["path"])
    if written.empty:
        raise InputError(f"{file}: it has no rows; add a row per image")
    findings.add_all(written == "", "the path is empty", "fill it in")
    if "name" in raw:
        names = text(raw["name"])
        check_names(names, findings)
    findings.raise_if_any()
    paths = absolute(written, file.absolute().parent)
    return [ListedImage(*pair) for pair in zip(names, paths, strict=True)]


def _images_below(folder: str) -> Iterator[ListedImage]:
    for path in _files_below(folder):
        if _suffix(path) in image_suffixes():
            yield ListedImage.at(path)


def _files_below(folder: str) -> Iterator[str]:
    """Files of a folder and the folders below it; hidden ones and maps left out."""
    for base, folders, names in walk(folder):
        marks = {name: os.path.join(base, name, MAPS_MARK) for name in folders}
        folders[:] = [name for name, mark in marks.items() if not os.path.lexists(mark)]
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(base, name)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
