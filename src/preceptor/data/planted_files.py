"""Files of a manifest with a planted shortcut: marked images, and copies of all other files."""

# os.path and not Path: a path of a manifest is kept as it is written, links included.
# ruff: noqa: PTH118, PTH119, PTH120, PTH122

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from preceptor.benchmark.forgeries import StampPlace
from preceptor.data.images import ImageError, decode_image, decode_map, read_file
from preceptor.data.locations.location import is_local, is_plain
from preceptor.data.manifest import Manifest
from preceptor.data.pixel_formats import open_image
from preceptor.data.shortcut_marks import (
    Box,
    MarkKind,
    Pixels,
    corner_box,
    draw_border,
    kept_contrast,
    random_box,
    smallest_size,
    stamp_box,
    tint,
)
from preceptor.errors import Problem, ProblemsError, without_secrets
from preceptor.runtime.progress import Progress

# A map of a person can have compression noise or a faint tail nearly everywhere: its region is
# where it is above this share of its largest value.
_MAP_LEVEL = 0.05
_GRAY_MODES = ("1", "L", "LA", "La")
# Folder of files that are not below the folder of the manifest.
_ELSEWHERE = "elsewhere"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Mark:
    """Mark of one image.

    Args:
        box: Place of a stamp; None for other kinds.
        touches_map: Whether the stamp lies on the human map.
    """

    box: Box | None
    touches_map: bool


def write_files(
    manifest: Manifest,
    folder: Path,
    chosen: NDArray[np.int64],
    *,
    kind: MarkKind,
    place: StampPlace | None,
    strength: float,
    input_size: int | None,
    seed: int,
    reserved: Collection[str],
    workers: int,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[int, Mark | None]]:
    """Write all images and maps of a manifest, the chosen ones with a mark.

    Args:
        manifest: Manifest of the images.
        folder: Output folder.
        chosen: Rows to mark.
        kind: Kind of mark.
        place: Place of a stamp; None for other kinds.
        strength: Contrast in gray levels.
        input_size: Side of the input for which a stamp is drawn; None = of the image itself.
        seed: Random seed of the places.
        reserved: Names of files that are written into `folder` later.
        workers: Number of threads.
        progress: Function called with (done, total).

    Returns:
        Table of the manifest with the paths of the written files, and the mark of each chosen row;
        None where the human map leaves no place.

    Raises:
        ProblemsError: Images cannot be decoded or are smaller than the mark.
        OSError: A file cannot be read or written.
    """
    table = manifest.table
    images, maps, names = (
        table[column].astype(str).tolist() for column in ("path", "saliency", "name")
    )
    copies = _copy_names([*images, *filter(None, maps)], str(manifest.root), reserved)
    marked = _marked_names(images, maps, chosen, copies, reserved)
    for parent in {(folder / name).parent for name in {*copies.values(), *marked.values()}}:
        parent.mkdir(parents=True, exist_ok=True)
    problems: list[tuple[int, Problem]] = []

    def mark(row: int) -> Mark | None:
        generator = np.random.default_rng([seed, 2, row])
        try:
            pixels = _pixels(images[row])
            _check_size(images[row], kind, pixels.shape, input_size)
            region = _region(maps[row], pixels.shape)
        except ImageError as error:
            column = "path" if error.path == images[row] else "saliency"
            what = f"{column} {os.path.basename(error.path)}: {error.reason}"
            problems.append((row, Problem(names[row], what, "replace or remove it")))
            return None
        box: Box | None = None
        shape = pixels.shape[0], pixels.shape[1]
        if kind == "stamp":
            if place == "corner":
                box = corner_box(shape, input_size)
            else:
                box = random_box(region, generator, input_size)
            if box is None:
                return None
            kept = 1.0 if input_size is None else kept_contrast(box, shape, input_size)
            pixels = stamp_box(pixels, strength / kept, box)
        else:
            pixels = (draw_border if kind == "border" else tint)(pixels, strength)
        # Level 1: higher levels take several times as long for a few percent.
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        Image.fromarray(flat).save(folder / marked[row], "PNG", compress_level=1)
        return Mark(box, box is not None and _touches(region, box))

    def copy(source: str) -> None:
        _link_or_copy(source, folder / copies[source])

    with _Threads(workers, len(marked) + len(copies), progress) as threads:
        marks = dict(zip(marked, threads.map(mark, marked), strict=True))
        if problems:
            source = str(manifest.source or manifest.root)
            raise ProblemsError(
                source, [problem for _, problem in sorted(problems, key=itemgetter(0))]
            )
        left = [image for row, image in enumerate(images) if marks.get(row) is None]
        threads.map(copy, dict.fromkeys([*left, *filter(None, maps)]))

    written = [
        marked[row] if marks.get(row) is not None else copies[image]
        for row, image in enumerate(images)
    ]
    paths = {
        "path": [str(folder / name) for name in written],
        "saliency": [str(folder / copies[path]) if path else "" for path in maps],
    }
    columns = {name: pd.Series(cells, table.index, "str") for name, cells in paths.items()}
    return table.assign(**columns), marks


def _copy_names(sources: Sequence[str], root: str, reserved: Collection[str]) -> dict[str, str]:
    """Name of each file in the output folder: its path below the manifest's folder, if it is."""
    prefix, used = os.path.join(root, ""), set(reserved)
    # A path can leave the folder of the manifest with `..`.
    plain = {source: os.path.normpath(_as_path(source, prefix)) for source in sources}
    outside = [path for path in plain.values() if not path.startswith(prefix)]
    above = _common_folder(outside) if outside else ""
    names: dict[str, str] = {}
    for source, path in plain.items():
        if path.startswith(prefix):
            name = path[len(prefix) :]
        else:
            name = os.path.join(_ELSEWHERE, os.path.relpath(_without_drive(path), above))
        names[source] = _unused(name, used)
    return names


def _as_path(source: str, prefix: str) -> str:
    """Path for a file; for a URL or a member, one below the folder of the manifest."""
    if is_plain(source):
        return source
    parts = re.split(r"://|::|[/\\]", without_secrets(source.removeprefix(prefix)))
    return prefix + "/".join(part for part in parts if part not in ("", ".", ".."))


def _common_folder(paths: Iterable[str]) -> str:
    return os.path.commonpath({os.path.dirname(_without_drive(path)) for path in paths})


def _without_drive(path: str) -> str:
    return os.path.splitdrive(path)[1]


def _marked_names(
    images: Sequence[str],
    maps: Sequence[str],
    chosen: NDArray[np.int64],
    copies: dict[str, str],
    reserved: Collection[str],
) -> dict[int, str]:
    """Name of the marked image of each chosen row: that of its copy, with the suffix of PNG."""
    used, map_files = {*copies.values(), *reserved}, set(maps)
    names = {}
    for row in chosen.tolist():
        copied = copies[images[row]]
        name = f"{os.path.splitext(copied)[0]}.png"
        # Either the copy of an image or the marked image is written, unless it is a map as well.
        is_own = name == copied and images[row] not in map_files
        names[row] = name if is_own else _unused(name, used)
    return names


def _unused(name: str, used: set[str]) -> str:
    """Name with a number if it is in use; it is then in use."""
    stem, suffix = os.path.splitext(name)
    found, number = name, 1
    while found in used:
        number += 1
        found = f"{stem}-{number}{suffix}"
    used.add(found)
    return found


def _pixels(path: str) -> Pixels:
    """Pixels of an image, (H, W, 1 or 3), as the library decodes them; uint16 if it is deeper."""
    content = read_file(path)
    decoded = decode_image(path, 3, content)
    with open_image(io.BytesIO(content)) as image:
        mode = image.mode
    if mode.startswith("I") or mode == "F":
        deep: NDArray[np.uint16] = np.rint(decode_map(path, content) * 65535.0).astype(np.uint16)
        return deep[..., None]
    return decoded[..., :1] if mode in _GRAY_MODES else decoded


def _check_size(path: str, kind: MarkKind, shape: tuple[int, ...], input_size: int | None) -> None:
    height, width = smallest_size(kind, (shape[0], shape[1]), input_size)
    if shape[0] < height or shape[1] < width:
        drawn = "" if input_size is None else f" for an input size of {input_size}"
        raise ImageError(
            path,
            f"{shape[1]} × {shape[0]} pixels, smaller than a {kind} with its margin{drawn}, "
            f"{width} × {height}",
        )


def _region(path: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(H, W) region of the human map over an image of this shape; empty without a map."""
    if not path:
        return np.zeros(shape[:2], bool)
    values = decode_map(path)
    above = Image.fromarray((values > _MAP_LEVEL * values.max()).astype(np.float32))
    resized = above.resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(resized) > 0


def _touches(region: NDArray[np.bool_], box: Box) -> bool:
    inside = region[box.top : box.top + box.height, box.left : box.left + box.width]
    return bool(inside.any())


def _link_or_copy(source: str, target: Path) -> None:
    """Hard link if the file system allows it, which costs no space; otherwise a copy."""
    if not is_local(source):
        target.write_bytes(read_file(source))
        return
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


class _Threads:
    """Thread pool that counts finished files; queued ones are cancelled if one fails.

    Args:
        workers: Number of threads.
        total: Number of files.
        progress: Function called with (done, total).
    """

    def __init__(self, workers: int, total: int, progress: Progress | None) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._done, self._total, self._progress = 0, total, progress

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of a function, in the order of the items."""
        results = []
        for result in self._pool.map(function, items):
            results.append(result)
            self._done += 1
            if self._progress and (self._done % 64 == 0 or self._done == self._total):
                self._progress(self._done, self._total)
        return results
