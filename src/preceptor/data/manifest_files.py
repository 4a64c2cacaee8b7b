"""Validation of the files of a manifest: existence, duplicates, decoding, aspect of maps."""

# os.path and not Path: a million files are looked up, and Path objects cost ten times as much.
# ruff: noqa: PTH100, PTH113, PTH114, PTH112, PTH118, PTH120

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.decode_pass import DecodePass
from preceptor.data.file_table import Decoded
from preceptor.data.locations.location import not_plain
from preceptor.data.locations.states import find_unreadable
from preceptor.data.manifest_io import Findings
from preceptor.errors import without_secrets
from preceptor.runtime.cores import core_count
from preceptor.runtime.progress import Progress

_Size = tuple[int, int]

_ASPECT_TOLERANCE = 0.02
_FEW = (
    32  # below this number of files in a folder, single queries are faster than listing the folder
)


def check_files(
    table: pd.DataFrame,
    rows: NDArray[np.int64],
    root: Path,
    findings: Findings,
    *,
    decoding: DecodePass | None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Note files that are missing, listed twice or, with `decoding`, invalid.

    Args:
        table: Table from `manifest_cells.check_cells`.
        rows: Numbers of the rows in messages.
        root: Base folder of relative paths.
        findings: Collects the problems.
        decoding: Decoding pass over every image and map; None = they must only exist.
        workers: Number of threads that look for files; None = one per core.
        progress: Function called with (done, total) while files are decoded.
    """
    threads = workers or core_count()
    images, maps = table["path"].tolist(), table["saliency"].tolist()
    image_there, real = find_files(images, threads)
    map_there, _ = find_files(maps, threads)
    prefix = os.path.join(os.path.abspath(root), "")
    for what, paths, there in (("image", images, image_there), ("map", maps, map_there)):
        told = _note_unreadable(what, paths, there, rows, prefix, findings)
        missing = [at for at in np.flatnonzero(~there).tolist() if paths[at] and at not in told]
        told = _note_missing_folders(what, paths, missing, rows, prefix, findings)
        for index in missing:
            if index not in told:
                name = paths[index].removeprefix(prefix)
                fix = f"paths start from {prefix}: correct it"
                if "\\" in name and os.sep == "/":
                    fix = "write / instead of \\ in paths"
                findings.add(rows[index], f"{what} {name!r} does not exist", fix)
    _check_twice(images, real, rows, prefix, findings)
    del real  # a million paths take 110 MB, and the decoding takes long
    if decoding is not None:
        images = [path if there else "" for path, there in zip(images, image_there, strict=True)]
        maps = [path if there else "" for path, there in zip(maps, map_there, strict=True)]
        found = decoding.decode(images, maps, complete=not findings, progress=progress)
        _check_contents(found, rows, prefix, findings)


def _note_missing_folders(
    what: str,
    paths: list[str],
    missing: list[int],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> set[int]:
    """Note each folder that is missing with several files, once.

    Args:
        what: Kind of the files in messages.
        paths: Absolute paths.
        missing: Positions of those that do not exist.
        rows: Numbers of the rows in messages.
        prefix: Beginning of paths that is left out in messages.
        findings: Collects the problems.

    Returns:
        Positions of the files in these folders.
    """
    folders: dict[str, list[int]] = {}
    for at in missing:
        folders.setdefault(os.path.dirname(paths[at]), []).append(at)
    told: set[int] = set()
    for folder, files in folders.items():
        name, first = folder.removeprefix(prefix), files[0]
        if len(files) > 1 and "\\" not in name and not os.path.isdir(folder):
            image = paths[first].removeprefix(prefix)
            said = f"{what} {image!r} and {len(files) - 1:,} more: there is no folder {name!r}"
            fix = f"paths start from {prefix}: correct them, or move the table"
            findings.add(rows[first], said, fix)
            told |= set(files)
    return told


def _note_unreadable(
    what: str,
    paths: list[str],
    there: NDArray[np.bool_],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> set[int]:
    """Look for remote files and members, and note those that cannot be read.

    Args:
        what: Kind of the files in messages.
        paths: Locations.
        there: (n,) whether they exist; set for remote files and members.
        rows: Numbers of the rows in messages.
        prefix: Beginning of paths that is left out in messages.
        findings: Collects the problems.

    Returns:
        Positions of those that were noted.
    """
    which = not_plain(paths)
    told: set[int] = set()
    for one in find_unreadable(paths, which) if which else ():
        first, count = one.at[0], len(one.at)
        name = without_secrets(paths[first]).removeprefix(prefix)
        said, fix = f"{what} {name!r}: {one.reason}", "correct the path, or remove the row"
        if one.container is not None:
            place = str(one.container).removeprefix(prefix)
            others = "" if count == 1 else f" ({count:,} rows)"
            said = f"{what} {name!r}: {place}: {one.reason}{others}"
            fix = "repair the file, or remove the rows"
        findings.add(rows[first], said, one.remedy or fix)
        told |= set(one.at)
    there[[at for at in which if at not in told]] = True
    return told


def _check_twice(
    images: list[str],
    real: list[str],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> None:
    files = pd.Series(real, dtype="str")
    again = np.flatnonzero((files.duplicated() & (files != "")).to_numpy(bool)).tolist()
    if not again:
        return
    first = {path: index for index, path in reversed(list(enumerate(real)))}
    for index in again:
        name, other = images[index].removeprefix(prefix), rows[first[real[index]]]
        what = f"image {name!r} is listed already in {findings.name(other)}"
        findings.add(rows[index], what, "remove one of the two")


def _check_contents(
    decoded: Decoded, rows: NDArray[np.int64], prefix: str, findings: Findings
) -> None:
    wrong_images, wrong_maps = decoded.wrong_images, decoded.wrong_maps
    other = _of_other_aspect(decoded.map_size, decoded.image_size)
    for index in sorted({*wrong_images, *wrong_maps, *other}):
        row, image = rows[index], decoded.images[index].removeprefix(prefix)
        name = decoded.maps[index].removeprefix(prefix)
        if index in wrong_images:
            what = f"image {image!r}: {wrong_images[index]}"
            findings.add(row, what, "replace the file or remove the row")
        if index in wrong_maps:
            what = f"map {name!r}: {wrong_maps[index]}"
            findings.add(row, what, "replace the file or empty the cell")
        if index in other:
            size, of = _times(decoded.map_size[index]), _times(decoded.image_size[index])
            what = f"map {name!r} is {size}, its image {of}"
            findings.add(row, what, "save the map with the aspect ratio of the image (any size)")


def _of_other_aspect(maps: NDArray[np.int32], images: NDArray[np.int32]) -> set[int]:
    """Rows whose map has another aspect ratio than the image, among rows with both."""
    both = np.flatnonzero(maps.all(1) & images.all(1))
    pairs, which = np.unique(np.hstack([maps[both], images[both]]), axis=0, return_inverse=True)
    differ = [not same_aspect((w, h), (wide, high)) for w, h, wide, high in pairs.tolist()]
    return set(both[np.array(differ, bool)[which.ravel()]].tolist())


def _times(size: NDArray[np.int32]) -> str:
    return f"{size[0]}×{size[1]}"


def same_aspect(first: _Size, second: _Size) -> bool:
    """Whether two sizes have the same aspect ratio, within 2 % and a rounding of one pixel.

    Example:
        >>> same_aspect((10, 8), (299, 224)), same_aspect((224, 299), (299, 224))
        (True, False)
    """
    (w, h), (width, height) = first, second
    return (
        abs(h - w * height / width) <= _ASPECT_TOLERANCE * h + 1
        or abs(w - h * width / height) <= _ASPECT_TOLERANCE * w + 1
    )


def find_files(paths: list[str], threads: int) -> tuple[NDArray[np.bool_], list[str]]:
    """Whether files exist, and their paths with resolved links; each folder is listed once.

    Args:
        paths: Absolute paths; "" for no file. Remote files and members are not looked for.
        threads: Number of folders that are listed at the same time.

    Returns:
        (n,) bool, and n paths, "" for those that do not exist; remote ones as they are.
    """
    exists = np.zeros(len(paths), dtype=bool)
    real = [""] * len(paths)
    names = [""] * len(paths)
    inside: dict[str, list[int]] = {}
    special = set(not_plain(paths))
    for index in special:
        real[index] = paths[index]
    for index, path in enumerate(paths):
        if path and index not in special:
            folder, names[index] = os.path.split(path) if os.altsep else _split(path)
            inside.setdefault(folder, []).append(index)

    def look(folder: str) -> None:
        plain = _plain_files(folder) if len(inside[folder]) >= _FEW else frozenset()
        start = os.path.join(os.path.realpath(folder), "")
        for index in inside[folder]:
            name = names[index]
            if name in plain:
                exists[index], real[index] = True, start + name
            elif _is_file(paths[index]):  # a link, or its name is encoded otherwise
                link = os.path.islink(paths[index])
                exists[index] = True
                real[index] = os.path.realpath(paths[index]) if link else start + name

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(look, inside):
            pass
    return exists, real


def _split(path: str) -> tuple[str, str]:
    """os.path.split for absolute POSIX paths, three times as fast."""
    folder, _, name = path.rpartition("/")
    return folder or "/", name


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a zero byte in the path
        return False


def _plain_files(folder: str) -> frozenset[str]:
    """Names of the files in a folder that are not links."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(e.name for e in entries if e.is_file(follow_symlinks=False))
    except (OSError, ValueError):
        return frozenset()
