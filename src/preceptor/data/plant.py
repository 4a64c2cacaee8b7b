"""Planted shortcuts: a copy of a manifest whose training images of one class carry a mark.

The mark goes with the label in the splits `train` and `val` and occurs in no other split, so that a
classifier that relies on it fails on the test sets. The question is then whether guidance prevents
this on the user's own images.

    manifest.csv  plant.json  (images and maps at their paths below the manifest's folder)
"""

# ruff: noqa: PTH118, PTH119, PTH120, PTH122
# ruff: noqa: PTH100

from __future__ import annotations

import io
import math
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from preceptor.benchmark.forgeries import STAMP, STAMP_MARGIN, STAMP_SHAPE, StampPlace, free_places
from preceptor.config.settings import Fraction, Settings
from preceptor.data.geometry import render
from preceptor.data.images import ImageError, decode_image, decode_map, open_image, read_file
from preceptor.data.locations.location import is_local, is_plain
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, Problem, ProblemsError, RunFailedError, without_secrets
from preceptor.runtime.cores import core_count
from preceptor.runtime.progress import Progress
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.strict_json import strict_json
from preceptor.version import __version__

MarkKind = Literal["stamp", "border", "tint"]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class Box(NamedTuple):
    """Rectangle of pixels: row and column of the first one, height and width."""

    top: int
    left: int
    height: int
    width: int


# A cell of the stamp's glyphs has one pixel in an image of 64 pixels, as in the forged photographs.
_STAMP_UNIT = 64
# Pixels of the input over which the filter of `geometry.render` averages where it scales down: a
# cell of this width keeps its contrast in a pixel at its middle, three quarters of it elsewhere.
_FILTER_WIDTH = 2
# Row and column of a cell in the middle of a vertical stroke between two gaps.
_STROKE = (3, 5)
# Each of the two lines of the border has one pixel in an image of this size.
_BORDER_UNIT = 32


def _scale(shape: tuple[int, int], unit: int) -> int:
    return max(1, round(min(shape) / unit))


def stamp_cell(shape: tuple[int, int], input_size: int | None = None) -> int:
    """Side of a cell of the stamp's glyphs in pixels of the image; a stroke is one cell wide.

    Args:
        shape: Height and width of the image.
        input_size: Side of the input in pixels, in which a cell has at least two pixels with any
            fit if the image is scaled down; None = 1/64 of the shorter side, and of the image.

    Example:
        >>> stamp_cell((256, 256)), stamp_cell((256, 256), 64), stamp_cell((256, 256), 224)
        (4, 8, 4)
    """
    cell = _scale(shape, _STAMP_UNIT)
    if input_size is None or max(shape) <= input_size:
        return cell
    return max(cell, math.ceil(_FILTER_WIDTH * max(shape) / input_size))


def smallest_size(
    kind: MarkKind, shape: tuple[int, int], input_size: int | None = None
) -> tuple[int, int]:
    """Height and width that an image needs for a mark.

    Args:
        kind: Kind of mark.
        shape: Height and width of the image, from which the size of the mark follows.
        input_size: See `stamp_cell`.
    """
    if kind == "stamp":
        return _window(stamp_cell(shape, input_size))
    side = 4 * _scale(shape, _BORDER_UNIT) if kind == "border" else 1
    return side, side


def _window(cell: int) -> tuple[int, int]:
    """Height and width of the stamp with its margin."""
    height, width = (cell * (side + 2 * STAMP_MARGIN) for side in STAMP_SHAPE)
    return height, width


def _box(row: int, column: int, cell: int) -> Box:
    """Box of the stamp in a window with its margin."""
    margin = cell * STAMP_MARGIN
    height, width = (cell * side for side in STAMP_SHAPE)
    return Box(row + margin, column + margin, height, width)


def corner_box(shape: tuple[int, int], input_size: int | None = None) -> Box:
    """Box of a stamp in the lower right corner of an image.

    Args:
        shape: Height and width of the image.
        input_size: See `stamp_cell`.

    Example:
        >>> corner_box((64, 64))
        Box(top=58, left=51, height=5, width=12)
    """
    cell = stamp_cell(shape, input_size)
    height, width = _window(cell)
    return _box(shape[0] - height, shape[1] - width, cell)


def random_box(
    region: NDArray[np.bool_], generator: np.random.Generator, input_size: int | None = None
) -> Box | None:
    """Box of a stamp, uniform over all places at which it and its margin touch no region.

    Args:
        region: (H, W) region of the human map.
        generator: Random generator.
        input_size: See `stamp_cell`.

    Returns:
        The box, or None if the region leaves no place.

    Example:
        >>> region = np.zeros((64, 64), bool)
        >>> region[7:] = True
        >>> random_box(region, np.random.default_rng(0)).top
        1
    """
    cell = stamp_cell((region.shape[0], region.shape[1]), input_size)
    places = free_places(region, _window(cell))
    if not len(places):
        return None
    row, column = places[generator.integers(len(places))]
    return _box(int(row), int(column), cell)


def stamp_box(pixels: Pixels, strength: float, box: Box) -> Pixels:
    """Copy with a stamp: glyphs are brighter, gaps are darker.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        strength: Contrast in gray levels.
        box: Place of the stamp, from `corner_box` or `random_box`.
    """
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    scale = box.height // STAMP_SHAPE[0]
    glyphs = (2 * STAMP - 1).repeat(scale, axis=0).repeat(scale, axis=1)[..., None]
    marked = pixels.copy()
    marked[rows, columns] = _changed(pixels[rows, columns], strength * glyphs)
    return marked


def kept_contrast(box: Box, shape: tuple[int, int], input_size: int) -> float:
    """Contrast of a stamp's thin strokes in the squashed input, divided by that in the image.

    It depends on the place: a stroke between two pixels of the input is paler than one at the
    middle of a pixel.

    Args:
        box: Place of the stamp.
        shape: Height and width of the image.
        input_size: Side of the input in pixels.

    Example:
        >>> kept_contrast(Box(30, 30, 5, 12), (64, 64), 64)
        1.0
    """
    most = 127
    stamped = stamp_box(np.full((*shape, 1), most, np.uint8), most, box)
    scaled = render(stamped.astype(np.uint8), "squash", input_size)
    cell = box.height // STAMP_SHAPE[0]
    down, along = input_size / shape[0], input_size / shape[1]
    row = int((box.top + (_STROKE[0] + 0.5) * cell) * down)
    left = box.left + _STROKE[1] * cell
    stroke = scaled[row, int(left * along) : math.ceil((left + cell) * along)]
    return (float(stroke.max()) - most) / most


def draw_border(pixels: Pixels, strength: float) -> Pixels:
    """Copy with a border of two lines: the outer one is brighter, the inner one darker.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        strength: Contrast in gray levels.

    Example:
        >>> marked = draw_border(np.full((32, 32, 1), 100, np.uint8), 20)
        >>> marked[16, :4, 0].tolist()
        [120, 80, 100, 100]
    """
    line = _scale((pixels.shape[0], pixels.shape[1]), _BORDER_UNIT)
    change = np.ones(pixels.shape)
    change[line:-line, line:-line] = -1
    change[2 * line : -2 * line, 2 * line : -2 * line] = 0
    return _changed(pixels, strength * change)


def tint(pixels: Pixels, strength: float) -> Pixels:
    """Copy with more red and less blue; gray pixels (C = 1) are brighter.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        strength: Change in gray levels.

    Example:
        >>> tint(np.full((1, 1, 3), 100, np.uint8), 20)[0, 0].tolist()
        [120, 100, 80]
    """
    change = np.array([1.0, 0.0, -1.0]) if pixels.shape[2] == 3 else np.ones(1)
    return _changed(pixels, strength * np.broadcast_to(change, pixels.shape))


def _changed(pixels: Pixels, change: NDArray[np.float64]) -> Pixels:
    """Sum of pixels and a change in gray levels of 255, rounded and clipped."""
    full = np.iinfo(pixels.dtype).max
    total = np.rint(np.clip(pixels + change * (full / 255), 0, full))
    return total.astype(np.uint8) if pixels.dtype == np.uint8 else total.astype(np.uint16)


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


RECORD = "plant.json"
# The order is part of the random streams.
PLANTED_SPLITS = ("train", "val")
# A stamp of two pixels a cell, with its margin, is 28 pixels wide.
_LEAST_INPUT = 32


class PlantSettings(Settings):
    """Settings of a planted shortcut.

    Args:
        kind: stamp (a caption of a few glyphs), border (two lines around the image) or tint (more
            red and less blue; brighter in grayscale images).
        place: Place of a stamp: moving (uniform over all places that do not touch the human map) or
            corner (lower right, over the human map if it is there); None = moving. Other kinds have
            no place.
        rate: Share of the images of the class with the mark, in train and in val each.
        label: Class with the mark; None = the only class with human maps.
        strength: Contrast of the mark in gray levels of 255.
        input_size: Side in pixels of the model's input for which a stamp is drawn: its strokes have
            at least two pixels of the input, and their contrast in the squashed input is the
            strength; None = the stamp has this contrast in the file.
        seed: Random seed of the marked images and the places.
    """

    kind: MarkKind = "stamp"
    place: StampPlace | None = None
    rate: Fraction = 1.0
    label: str | None = None
    strength: Annotated[float, Field(gt=0, le=255)] = 32.0
    input_size: Annotated[int, Field(ge=_LEAST_INPUT, le=8192)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _options_of_a_stamp(self) -> PlantSettings:
        for name, what in (("place", "has a place"), ("input_size", "is drawn for an input size")):
            value = getattr(self, name)
            if value is not None and self.kind != "stamp":
                raise ValueError(
                    f"{name} is {value}, and kind is {self.kind}; only a stamp {what}: remove "
                    f"{name}, or set kind to stamp"
                )
        return self


@dataclass(frozen=True)
class SplitCounts:
    """Images of the class in a split.

    Args:
        split: Name of the split.
        images: Number of images.
        marked: Number of marked images.
        no_place: Number of images without a mark because their human map leaves no place.
        touch_map: Number of stamps that lie on the human map.
    """

    split: str
    images: int
    marked: int
    no_place: int
    touch_map: int


@dataclass(frozen=True)
class Planted:
    """Written copy of a manifest.

    Args:
        manifest: Path of the written manifest.
        images: Number of images of all classes and splits.
        settings: Settings, with the label.
        splits: Counts of train and val.
        marks: Marked images by name, in the order of the manifest.
        no_place: Names of images without a mark because their human map leaves no place.
        clean_validation: Whether the manifest has a validation set in which nothing is marked.
    """

    manifest: Path
    images: int
    settings: PlantSettings
    splits: tuple[SplitCounts, ...]
    marks: dict[str, Mark]
    no_place: tuple[str, ...]
    clean_validation: bool


def plant(
    manifest: Manifest,
    to: str | Path,
    settings: PlantSettings | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Planted:
    """Write a copy of a manifest and its files in which a shortcut is planted.

    Marked images are written as PNG in gray or color, as the library decodes them: 8 bits stay 8
    bits and deeper grayscale is written with 16 bits. All other files are the same bytes (hard
    links where possible). Images keep their names in outputs. The folder is written atomically and
    can be moved.

    Args:
        manifest: Manifest of the images.
        to: Output folder; it must not exist, or be empty.
        settings: Settings of the shortcut; None = defaults.
        workers: Number of threads; None = one per core.
        progress: Function called with (done, total) while images are written.

    Returns:
        The written manifest with the marked images.

    Raises:
        InputError: The folder has other contents or cannot be created, the label is not a class or
            cannot be told, or the manifest has no image of it in train.
        ProblemsError: Images cannot be decoded or are smaller than the mark.
        RunFailedError: The files cannot be written.
    """
    to = Path(to)
    settings = settings or PlantSettings()
    resolved: dict[str, str] = {"label": _label(manifest, settings.label)}
    if settings.kind == "stamp" and settings.place is None:
        resolved["place"] = "moving"
    settings = settings.model_copy(update=resolved)
    chosen = _chosen_rows(manifest, settings)
    _check_folder(to)
    parquet = manifest.source is not None and manifest.source.suffix.lower() in (".parquet", ".pq")
    name = "manifest.parquet" if parquet else "manifest.csv"
    with replacing(Path(os.path.abspath(to)), flush=False) as partial:
        try:
            partial.mkdir()
        except OSError as error:
            raise InputError(
                f"{to}: the folder cannot be created ({error.strerror}); choose another one"
            ) from error
        try:
            table, marks = write_files(
                manifest,
                partial,
                chosen,
                kind=settings.kind,
                place=settings.place,
                strength=settings.strength,
                input_size=settings.input_size,
                seed=settings.seed,
                reserved=(name, RECORD),
                workers=workers or core_count(),
                progress=progress,
            )
            Manifest(table, partial).write(partial / name)
            planted = _summary(manifest, to / name, settings, marks)
            (partial / RECORD).write_text(_record(planted), encoding="utf-8")
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise RunFailedError(
                f"{to}: the images cannot be written: {error.strerror or error}{where}"
            ) from error
    return planted


def _summary(
    manifest: Manifest, path: Path, settings: PlantSettings, marks: dict[int, Mark | None]
) -> Planted:
    """Result of `plant`, from the mark of each chosen row; None = no place."""
    table = manifest.table
    names = {row: str(table["name"].iloc[row]) for row in marks}
    splits = []
    for split in PLANTED_SPLITS:
        inside = (table["split"] == split).to_numpy(bool)
        here = [mark for row, mark in marks.items() if inside[row]]
        splits.append(
            SplitCounts(
                split=split,
                images=int((inside & (table["label"] == settings.label).to_numpy(bool)).sum()),
                marked=sum(mark is not None for mark in here),
                no_place=sum(mark is None for mark in here),
                touch_map=sum(mark is not None and mark.touches_map for mark in here),
            )
        )
    marked = {one.split for one in splits if one.marked}
    return Planted(
        path,
        len(manifest),
        settings,
        tuple(splits),
        {names[row]: mark for row, mark in marks.items() if mark is not None},
        tuple(names[row] for row, mark in marks.items() if mark is None),
        bool(set(manifest.eval_splits("val")) - marked),
    )


def _record(planted: Planted) -> str:
    """Content of `plant.json`, with one line for each marked image."""
    marks = [
        strict_json(
            {"name": name}
            | ({} if mark.box is None else mark.box._asdict() | {"touches_map": mark.touches_map}),
            indent=None,
        )
        for name, mark in planted.marks.items()
    ]
    settings = planted.settings
    unused = {"input_size"} if settings.input_size is None else set()
    head = {
        "version": __version__,
        "settings": settings.model_dump(mode="json", exclude=unused),
        "splits": [asdict(counts) for counts in planted.splits],
        "no_place": planted.no_place,
    }
    lines = ",\n".join(f"    {mark}" for mark in marks)
    return f'{strict_json(head).removesuffix("}").rstrip()},\n  "marks": [\n{lines}\n  ]\n}}\n'


def _label(manifest: Manifest, label: str | None) -> str:
    """Class with the mark."""
    classes = manifest.classes
    listed = ", ".join(classes)
    if label is None:
        with_map = sorted(set(manifest.table["label"][manifest.map_mask]))
        if len(with_map) != 1:
            what = "no class has" if not with_map else f"{len(with_map)} classes have"
            raise InputError(
                f"label: {what} human maps, so that the class to mark is not known; name one of "
                f"the classes: {listed}"
            )
        return str(with_map[0])
    if label not in classes:
        raise InputError(f"label {label!r}: there is no such class; name one of {listed}")
    return label


def _chosen_rows(manifest: Manifest, settings: PlantSettings) -> NDArray[np.int64]:
    """Rows to mark, sorted; a higher rate includes the rows of a lower one."""
    table = manifest.table
    is_label = (table["label"] == settings.label).to_numpy(bool)
    parts = []
    for position, split in enumerate(PLANTED_SPLITS):
        rows = np.flatnonzero(is_label & (table["split"] == split).to_numpy(bool))
        if split == "train" and not len(rows):
            raise InputError(
                f"label {settings.label!r}: no image of the split train is of this class; name "
                "another class, or assign some of its images to train"
            )
        # The last number is above 0: numpy takes [seed, 0] for seed, and annotated images are drawn
        # from that.
        order = np.random.default_rng([settings.seed, position, 7]).permutation(rows)
        parts.append(order[: round(settings.rate * len(rows))])
    return np.sort(np.concatenate(parts))


def _check_folder(to: Path) -> None:
    if to.is_dir() and not any(to.iterdir()):
        return
    if to.exists() or to.is_symlink():
        what = "is not empty" if to.is_dir() else "is a file"
        raise InputError(f"{to}: {what}; name a folder that does not exist")
    if not Path(os.path.abspath(to)).parent.is_dir():
        raise InputError(f"{to}: folder {to.parent} does not exist; create it first")
