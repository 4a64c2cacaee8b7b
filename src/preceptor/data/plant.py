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
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from preceptor.benchmark.forgeries import StampPlace
from preceptor.config.settings import Fraction, Settings
from preceptor.data.images import ImageError, decode_image, decode_map, open_image, read_file
from preceptor.data.manifest import Manifest
from preceptor.data.marks import (
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
from preceptor.data.remote import is_local, is_plain
from preceptor.errors import InputError, Problem, ProblemsError, RunFailedError, without_secrets
from preceptor.utils.files import replacing
from preceptor.utils.process import core_count
from preceptor.utils.results import strict_json
from preceptor.utils.text import Progress
from preceptor.version import __version__

RECORD = "plant.json"
# The order is part of the random streams.
PLANTED_SPLITS = ("train", "val")
# A stamp of two pixels a cell, with its margin, is 28 pixels wide.
_LEAST_INPUT = 32


class PlantSettings(Settings):
    """Settings of a planted shortcut."""

    # stamp (a caption of a few glyphs), border (two lines around the image) or tint (more red and
    # less blue; brighter in grayscale images)
    kind: MarkKind = "stamp"
    # Place of a stamp: moving (uniform over all places that do not touch the human map) or corner
    # (lower right, over the human map if it is there); None = moving. Other kinds have no place
    place: StampPlace | None = None
    rate: Fraction = 1.0  # Share of the images of the class with the mark, in train and in val each
    label: str | None = None  # Class with the mark; None = the only class with human maps
    # Contrast of the mark in gray levels of 255
    strength: Annotated[float, Field(gt=0, le=255)] = 32.0
    # Side in pixels of the model's input for which a stamp is drawn: its strokes have at least two
    # pixels of the input, and their contrast in the squashed input is the strength; None = the
    # stamp has this contrast in the file
    input_size: Annotated[int, Field(ge=_LEAST_INPUT, le=8192)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0  # Random seed of the marked images and the places

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

    box: Box | None  # Place of a stamp; None for other kinds
    touches_map: bool  # Whether the stamp lies on the human map


@dataclass(frozen=True)
class SplitCounts:
    """Images of the class in a split."""

    split: str  # Name of the split
    images: int  # Number of images
    marked: int  # Number of marked images
    no_place: int  # Number of images without a mark because their human map leaves no place
    touch_map: int  # Number of stamps that lie on the human map


@dataclass(frozen=True)
class Planted:
    """Written copy of a manifest."""

    manifest: Path  # Path of the written manifest
    images: int  # Number of images of all classes and splits
    settings: PlantSettings  # Settings, with the label
    splits: tuple[SplitCounts, ...]  # Counts of train and val
    marks: dict[str, Mark]  # Marked images by name, in the order of the manifest
    # Names of images without a mark because their human map leaves no place
    no_place: tuple[str, ...]
    clean_validation: bool  # Whether the manifest has a validation set in which nothing is marked


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
