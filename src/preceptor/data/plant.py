"""Planted shortcuts: a copy of a manifest whose training images of one class carry a mark.

The mark (a stamp, a border or a tint) goes with the label in the splits `train` and `val` and
occurs in no other split, so that a classifier that relies on it fails on the test sets. The
question is then whether guidance prevents this on the user's own images.

    manifest.csv  plant.json  (images and maps at their paths below the manifest's folder)
"""

# os.path and not Path: a path of a manifest is kept as it is written, links included.
# ruff: noqa: PTH100, PTH118, PTH119, PTH122

from __future__ import annotations

import io
import math
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from preceptor.benchmark.forgeries import (
    STAMP,
    STAMP_MARGIN,
    STAMP_SHAPE,
    StampPlace,
    free_places,
)
from preceptor.config.settings import Fraction, Settings
from preceptor.data.geometry import render
from preceptor.data.images import ImageError, decode_image, decode_map, open_image, read_file
from preceptor.data.manifest import Manifest
from preceptor.data.remote import is_local, is_plain
from preceptor.errors import InputError, Problem, ProblemsError, RunFailedError, without_secrets
from preceptor.utils.files import replacing
from preceptor.utils.process import core_count
from preceptor.utils.results import strict_json
from preceptor.utils.text import Progress
from preceptor.version import __version__

RECORD = "plant.json"
MarkKind = Literal["stamp", "border", "tint"]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]
# The order is part of the random streams.
PLANTED_SPLITS = ("train", "val")
# A stamp of two pixels a cell, with its margin, is 28 pixels wide.
_LEAST_INPUT = 32


class Box(NamedTuple):
    """Rectangle of pixels: row and column of the first one, height and width."""

    top: int
    left: int
    height: int
    width: int


class PlantSettings(Settings):
    """Settings of a planted shortcut."""

    # A caption of a few glyphs, two lines around the image, or more red and less blue.
    kind: MarkKind = "stamp"
    # Of a stamp: uniform over all places off the human map (the default), or lower right.
    place: StampPlace | None = None
    rate: Fraction = 1.0  # of the images of the class, in train and in val each
    label: str | None = None  # None = the only class with human maps
    strength: Annotated[float, Field(gt=0, le=255)] = 32.0  # gray levels of 255
    # Side of the input in which a stamp has this contrast, and strokes of two pixels; None = in the
    # file.
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


Item = TypeVar("Item")

# A map of a person can have compression noise or a faint tail nearly everywhere: its region is
# where it is above this share of its largest value.
_MAP_LEVEL = 0.05
_GRAY_MODES = ("1", "L", "LA", "La")


@dataclass(frozen=True)
class Mark:
    """Mark of one image."""

    box: Box | None  # of a stamp
    touches_map: bool


@dataclass(frozen=True)
class SplitCounts:
    """Images of the class in a split."""

    split: str
    images: int
    marked: int
    no_place: int  # their human map leaves no place for the mark
    touch_map: int  # stamps that lie on the human map


@dataclass(frozen=True)
class Planted:
    """Written copy of a manifest."""

    manifest: Path
    images: int  # of all classes and splits
    settings: PlantSettings
    splits: tuple[SplitCounts, ...]
    marks: dict[str, Mark]  # by name of the image
    no_place: tuple[str, ...]  # names of images whose human map leaves no place
    clean_validation: bool  # a validation set has no mark


def plant(
    manifest: Manifest,
    to: str | Path,
    settings: PlantSettings | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Planted:
    """Write a copy of a manifest and its files in which a shortcut is planted."""
    to, settings = Path(to), settings or PlantSettings()
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
            copies, marked = _names(manifest, chosen, {name, RECORD})
            for parent in {
                (partial / file).parent for file in (*copies.values(), *marked.values())
            }:
                parent.mkdir(parents=True, exist_ok=True)
            marks = _write_files(
                manifest, partial, settings, copies, marked, workers or core_count(), progress
            )
            Manifest(_table(manifest, partial, copies, marked, marks), partial).write(
                partial / name
            )
            planted = _summary(manifest, to / name, settings, marks)
            (partial / RECORD).write_text(_record(planted), encoding="utf-8")
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise RunFailedError(
                f"{to}: the images cannot be written: {error.strerror or error}{where}"
            ) from error
    return planted


def _names(
    manifest: Manifest, chosen: NDArray[np.int64], used: set[str]
) -> tuple[dict[str, str], dict[int, str]]:
    """Name of the copy of each file, and of the marked image of each chosen row."""
    prefix = os.path.join(manifest.root, "")
    images, maps = manifest.table["path"].tolist(), manifest.table["saliency"].tolist()
    copies: dict[str, str] = {}
    for source in dict.fromkeys([*images, *filter(None, maps)]):
        path = source
        if not is_plain(source):  # a URL or a member
            parts = re.split(r"://|::|[/\\]", without_secrets(source.removeprefix(prefix)))
            path = prefix + "/".join(part for part in parts if part not in ("", ".", ".."))
        path = os.path.normpath(path)  # it can leave the folder of the manifest with `..`
        below = path.startswith(prefix)
        copies[source] = _unused(
            path[len(prefix) :] if below else f"elsewhere/{os.path.basename(path)}", used
        )
    marked, map_files = {}, set(maps)
    for row in chosen.tolist():
        copied = copies[images[row]]
        name = f"{os.path.splitext(copied)[0]}.png"
        # Either the copy of an image or the marked image is written, unless it is a map as well.
        is_own = name == copied and images[row] not in map_files
        marked[row] = name if is_own else _unused(name, used)
    return copies, marked


def _unused(name: str, used: set[str]) -> str:
    """Name with a number if it is in use; it is then in use."""
    stem, suffix = os.path.splitext(name)
    unused, number = name, 1
    while unused in used:
        number += 1
        unused = f"{stem}-{number}{suffix}"
    used.add(unused)
    return unused


def _write_files(
    manifest: Manifest,
    folder: Path,
    settings: PlantSettings,
    copies: dict[str, str],
    marked: dict[int, str],
    workers: int,
    progress: Progress | None,
) -> dict[int, Mark | None]:
    """Write all images and maps; returns the mark of each chosen row, None for no place."""
    table = manifest.table
    images, maps = table["path"].tolist(), table["saliency"].tolist()
    problems: dict[int, Problem] = {}

    def mark(row: int) -> Mark | None:
        try:
            pixels, found = _marked(images[row], maps[row], settings, row)
        except ImageError as error:
            column = "path" if error.path == images[row] else "saliency"
            what = f"{column} {os.path.basename(error.path)}: {error.reason}"
            problems[row] = Problem(str(table["name"].iloc[row]), what, "replace or remove it")
            return None
        if found is not None:
            # Level 1: higher levels take several times as long for a few percent.
            flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
            Image.fromarray(flat).save(folder / marked[row], "PNG", compress_level=1)
        return found

    def copy(source: str) -> None:
        _link_or_copy(source, folder / copies[source])

    with ThreadPoolExecutor(workers) as pool:
        done, total = count(1), len(marked) + len(copies)

        def told(results: Iterator[Item]) -> Iterator[Item]:
            for result in results:
                yield result
                number = next(done)
                if progress is not None and (number % 64 == 0 or number == total):
                    progress(number, total)

        try:
            marks = dict(zip(marked, told(pool.map(mark, marked)), strict=True))
            if problems:
                source = str(manifest.source or manifest.root)
                raise ProblemsError(source, [problems[row] for row in sorted(problems)])
            left = [image for row, image in enumerate(images) if marks.get(row) is None]
            list(told(pool.map(copy, dict.fromkeys([*left, *filter(None, maps)]))))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return marks


def _marked(
    path: str, map_path: str, settings: PlantSettings, row: int
) -> tuple[Pixels, Mark | None]:
    """Pixels of an image with its mark; None if the human map leaves no place."""
    kind, size, strength = settings.kind, settings.input_size, settings.strength
    pixels = _pixels(path)
    shape = pixels.shape[0], pixels.shape[1]
    height, width = smallest_size(kind, shape, size)
    if shape[0] < height or shape[1] < width:
        drawn = "" if size is None else f" for an input size of {size}"
        raise ImageError(
            path,
            f"{shape[1]} × {shape[0]} pixels, smaller than a {kind} with its margin{drawn}, "
            f"{width} × {height}",
        )
    region = np.zeros(shape, bool)
    if map_path:
        values = decode_map(map_path)
        above = Image.fromarray((values > _MAP_LEVEL * values.max()).astype(np.float32))
        region = np.asarray(above.resize((shape[1], shape[0]), Image.Resampling.BOX)) > 0
    if kind != "stamp":
        return (draw_border if kind == "border" else tint)(pixels, strength), Mark(None, False)
    if settings.place == "corner":
        box: Box | None = corner_box(shape, size)
    else:
        box = random_box(region, np.random.default_rng([settings.seed, 2, row]), size)
    if box is None:
        return pixels, None
    kept = 1.0 if size is None else kept_contrast(box, shape, size)
    inside = region[box.top : box.top + box.height, box.left : box.left + box.width]
    return stamp_box(pixels, strength / kept, box), Mark(box, bool(inside.any()))


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


def _link_or_copy(source: str, target: Path) -> None:
    """Hard link if the file system allows it, which costs no space; otherwise a copy."""
    if not is_local(source):
        target.write_bytes(read_file(source))
        return
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def _table(
    manifest: Manifest,
    folder: Path,
    copies: dict[str, str],
    marked: dict[int, str],
    marks: dict[int, Mark | None],
) -> pd.DataFrame:
    """Table of the manifest with the paths of the written files."""
    table = manifest.table
    images = [
        str(folder / (marked[row] if marks.get(row) is not None else copies[image]))
        for row, image in enumerate(table["path"])
    ]
    maps = [str(folder / copies[path]) if path else "" for path in table["saliency"]]
    columns = {"path": images, "saliency": maps}
    return table.assign(**{k: pd.Series(v, table.index, "str") for k, v in columns.items()})


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
    """Side of a cell of the stamp's glyphs in pixels of the image; a stroke is one cell wide."""
    cell = _scale(shape, _STAMP_UNIT)
    if input_size is None or max(shape) <= input_size:
        return cell
    return max(cell, math.ceil(_FILTER_WIDTH * max(shape) / input_size))


def smallest_size(
    kind: MarkKind, shape: tuple[int, int], input_size: int | None
) -> tuple[int, int]:
    """Height and width that an image of this shape needs for a mark."""
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
    """Box of a stamp in the lower right corner of an image."""
    cell = stamp_cell(shape, input_size)
    height, width = _window(cell)
    return _box(shape[0] - height, shape[1] - width, cell)


def random_box(
    region: NDArray[np.bool_], generator: np.random.Generator, input_size: int | None = None
) -> Box | None:
    """Box of a stamp, uniform over all places at which its margin touches no (H, W) region."""
    cell = stamp_cell((region.shape[0], region.shape[1]), input_size)
    places = free_places(region, _window(cell))
    if not len(places):
        return None
    row, column = places[generator.integers(len(places))]
    return _box(int(row), int(column), cell)


def stamp_box(pixels: Pixels, strength: float, box: Box) -> Pixels:
    """Copy of (H, W, C) pixels with a stamp: glyphs are brighter, gaps are darker."""
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    scale = box.height // STAMP_SHAPE[0]
    glyphs = (2 * STAMP - 1).repeat(scale, axis=0).repeat(scale, axis=1)[..., None]
    marked = pixels.copy()
    marked[rows, columns] = _changed(pixels[rows, columns], strength * glyphs)
    return marked


def kept_contrast(box: Box, shape: tuple[int, int], input_size: int) -> float:
    """Contrast of a stamp's thin strokes in the squashed input, divided by that in the image."""
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
    """Copy with a border of two lines: the outer one is brighter, the inner one darker."""
    line = _scale((pixels.shape[0], pixels.shape[1]), _BORDER_UNIT)
    change = np.ones(pixels.shape)
    change[line:-line, line:-line] = -1
    change[2 * line : -2 * line, 2 * line : -2 * line] = 0
    return _changed(pixels, strength * change)


def tint(pixels: Pixels, strength: float) -> Pixels:
    """Copy with more red and less blue; gray pixels (C = 1) are brighter."""
    change = np.array([1.0, 0.0, -1.0]) if pixels.shape[2] == 3 else np.ones(1)
    return _changed(pixels, strength * np.broadcast_to(change, pixels.shape))


def _changed(pixels: Pixels, change: NDArray[np.float64]) -> Pixels:
    """Sum of pixels and a change in gray levels of 255, rounded and clipped."""
    full = np.iinfo(pixels.dtype).max
    total = np.rint(np.clip(pixels + change * (full / 255), 0, full))
    return total.astype(np.uint8) if pixels.dtype == np.uint8 else total.astype(np.uint16)
