"""Images that are named by files, folders, patterns, manifests and lists of paths."""

# os.path and not Path: a million files are listed.
# ruff: noqa: PTH118, PTH120, PTH122, PTH207

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from preceptor.data.checks import Findings, absolute, check_names, read_table, text
from preceptor.data.images import image_suffixes
from preceptor.data.remote import is_url
from preceptor.errors import InputError
from preceptor.utils.files import walk

MANIFESTS = (".csv", ".tsv", ".parquet", ".pq")
"""Suffixes of manifests."""
LIST = "-"
"""Input that stands for a list of paths, one per line."""
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

    An input is an image file, a URL, a folder (all images below it), a pattern such as
    `scans/**/*.png`, a manifest (CSV or Parquet), or `-` for a list of paths, one per line. The
    folder `without`, and below a folder those with a file `MAPS_MARK`, are left out.
    """

    def __init__(
        self, inputs: Sequence[str], lines: Iterable[str] = (), without: Path | None = None
    ) -> None:
        self._lines = lines
        self._without = "" if without is None else os.path.realpath(without)
        if inputs.count(LIST) > 1:
            raise InputError(f"{LIST} is given {inputs.count(LIST)} times; there is one list")
        self._parts = [_part(name, self._without) for name in inputs]

    def __iter__(self) -> Iterator[ListedImage]:
        for part in self._parts:
            if part == LIST:
                empty = True
                for at, line in enumerate(self._lines):
                    # Editors of Windows begin a file in UTF-8 with a mark.
                    if path := line.rstrip("\r\n").removeprefix("" if at else "\ufeff"):
                        empty = False
                        yield ListedImage.at(path)
                if empty:
                    raise InputError(f"{LIST}: the list has no paths")
            elif isinstance(part, str):
                yield from _images_below(part, self._without)
            else:
                yield from part

    def count(self) -> int | None:
        """Number of images; None if a list is read from a stream."""
        return None if LIST in self._parts else sum(1 for _ in self)

    def left_out(self) -> Counter[str]:
        """Numbers of files in the folders that are no images, by suffix, without hidden ones."""
        folders = [part for part in self._parts if isinstance(part, str) and part != LIST]
        names = (name for part in folders for name in _files_below(part, self._without))
        return Counter(_suffix(name) for name in names if _suffix(name) not in image_suffixes())


def _part(name: str, without: str) -> str | list[ListedImage]:
    """A folder or `-`, or images."""
    if name == LIST:
        return LIST
    exists = os.path.lexists(name)
    if is_url(name):
        return [ListedImage.at(name)]
    if os.path.isdir(name):  # noqa: PTH112
        if next(_images_below(name, without), None) is None:
            known = " ".join(sorted(image_suffixes()))
            raise InputError(f"{name}: the folder has no images ({known})")
        return name
    if not exists:
        found = glob.glob(name, recursive=True) if glob.has_magic(name) else []
        paths = [
            path
            for path in sorted(found)
            if not (os.path.isdir(path) or _is_below(os.path.dirname(path), without))  # noqa: PTH112
        ]
        if not paths:
            what = "no file fits this pattern" if glob.has_magic(name) else "there is no such file"
            raise InputError(f"{name}: {what}; correct it")
        return [ListedImage.at(path) for path in paths]
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


def _images_below(folder: str, without: str) -> Iterator[ListedImage]:
    for path in _files_below(folder, without):
        if _suffix(path) in image_suffixes():
            yield ListedImage.at(path)


def _files_below(folder: str, without: str) -> Iterator[str]:
    """Files of a folder and the folders below it; hidden ones, maps and one folder left out."""
    for base, folders, names in walk(folder):
        paths = {name: os.path.join(base, name) for name in folders}
        folders[:] = [
            name
            for name, path in paths.items()
            if not _is_below(path, without) and not os.path.lexists(os.path.join(path, MAPS_MARK))
        ]
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(base, name)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _is_below(path: str, folder: str) -> bool:
    """Whether a folder is another one, given without links, or lies below it; False for ""."""
    whole = os.path.realpath(path) if folder else ""
    return bool(folder) and (whole == folder or whole.startswith(folder + os.sep))
