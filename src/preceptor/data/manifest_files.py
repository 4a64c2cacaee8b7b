"""What must hold of the files in a manifest: there, listed once, sound, maps like images."""

# os.path and not Path: a million files are looked up, and Path objects cost ten times as much.
# ruff: noqa: PTH100, PTH113, PTH114, PTH118

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.images import ImageError, decode_image, decode_map
from preceptor.data.manifest_io import Findings
from preceptor.runtime.cores import core_count

Progress = Callable[[int, int], None]
_Size = tuple[int, int]

_ASPECT_TOLERANCE = 0.02
_FEW = 32  # below this many files in a folder, asking for each beats listing the folder


def check_files(
    table: pd.DataFrame,
    rows: NDArray[np.int64],
    root: Path,
    findings: Findings,
    *,
    verify: bool,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Note files that are missing, listed twice or, with `verify`, unusable.

    Args:
        table: What `manifest_cells.check_cells` returned.
        rows: The rows' numbers in messages.
        root: The folder that relative paths start from.
        findings: Where problems are noted.
        verify: Decode every image and map in full.
        workers: Threads; None for a thread a core.
        progress: Called with (done, total) while files are decoded.
    """
    threads = workers or core_count()
    images, maps = table["path"].tolist(), table["saliency"].tolist()
    image_there, real = find_files(images, threads)
    map_there, _ = find_files(maps, threads)
    prefix = os.path.join(os.path.abspath(root), "")
    for what, paths, there in (("image", images, image_there), ("map", maps, map_there)):
        for index in np.flatnonzero(~there).tolist():
            if name := paths[index].removeprefix(prefix):
                fix = f"paths start from {prefix}: correct it"
                if "\\" in name and os.sep == "/":
                    fix = "write / instead of \\ in paths"
                findings.add(rows[index], f"{what} {name!r} does not exist", fix)
    _check_twice(images, real, rows, prefix, findings)
    if verify:
        images = [path if there else "" for path, there in zip(images, image_there, strict=True)]
        maps = [path if there else "" for path, there in zip(maps, map_there, strict=True)]
        sizes = _decode_all(images, maps, threads, progress)
        _check_contents(images, maps, sizes, rows, prefix, findings)


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


def _decode_all(
    images: list[str], maps: list[str], threads: int, progress: Progress | None
) -> dict[tuple[str, str], _Size | str]:
    """The size of each file as an image or a map, or why it cannot be decoded."""
    decoders: dict[str, Callable[[Path], NDArray[Any]]] = {"image": decode_image, "map": decode_map}

    def size(job: tuple[str, str]) -> _Size | str:
        kind, path = job
        try:
            array = decoders[kind](Path(path))
        except ImageError as error:
            return error.reason
        return array.shape[1], array.shape[0]

    jobs = [("image", path) for path in images if path] + [("map", path) for path in maps if path]
    jobs = list(dict.fromkeys(jobs))  # a map may serve many images
    sizes: dict[tuple[str, str], _Size | str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(jobs), 1024):  # a queue of a million futures would cost memory
            batch = jobs[start : start + 1024]
            for job, found in zip(batch, pool.map(size, batch), strict=True):
                sizes[job] = found
                if progress is not None and (len(sizes) % 64 == 0 or len(sizes) == len(jobs)):
                    progress(len(sizes), len(jobs))
    return sizes


def _check_contents(
    images: list[str],
    maps: list[str],
    sizes: dict[tuple[str, str], _Size | str],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> None:
    for row, image, saliency in zip(rows.tolist(), images, maps, strict=True):
        image_size, map_size = sizes.get(("image", image)), sizes.get(("map", saliency))
        if isinstance(image_size, str):
            what = f"image {image.removeprefix(prefix)!r}: {image_size}"
            findings.add(row, what, "replace the file or remove the row")
        name = saliency.removeprefix(prefix)
        if isinstance(map_size, str):
            what = f"map {name!r}: {map_size}"
            findings.add(row, what, "replace the file or empty the cell")
        elif map_size and isinstance(image_size, tuple) and not same_aspect(map_size, image_size):
            what = f"map {name!r} is {_times(map_size)}, its image {_times(image_size)}"
            findings.add(row, what, "make the map of the image's aspect (any size will do)")


def _times(size: _Size) -> str:
    return f"{size[0]}×{size[1]}"


def same_aspect(first: _Size, second: _Size) -> bool:
    """Whether two sizes have one aspect, within 2 % and a pixel of rounding of the first.

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
    """Which files exist, and their paths with links resolved; a folder is listed once.

    Args:
        paths: Absolute paths; "" is no file.
        threads: How many folders are looked through at a time.

    Returns:
        bool of shape (n,), and n paths, "" for those that do not exist.
    """
    exists = np.zeros(len(paths), dtype=bool)
    real = [""] * len(paths)
    names = [""] * len(paths)
    inside: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        if path:
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
    """Names of a folder's files that are no links."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(e.name for e in entries if e.is_file(follow_symlinks=False))
    except (OSError, ValueError):
        return frozenset()
