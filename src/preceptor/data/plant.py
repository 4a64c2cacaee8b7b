"""Planted shortcuts: a manifest whose training images of one class carry a stamp.

The stamp, a caption of a few glyphs, goes with the label in the splits `train` and `val` and occurs
in no other split, so that a classifier that relies on it fails on the test sets. The question is
then whether guidance prevents this on the user's own images.

    manifest.csv  plant.json  stamped/…  (other images and all maps stay where they are)
"""

# ruff: noqa: PTH119

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from preceptor.benchmark.forgeries import STAMP, STAMP_MARGIN, STAMP_SHAPE, StampPlace, free_places
from preceptor.config.settings import Fraction, Settings
from preceptor.data.images import ImageError, decode_image, decode_map
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, Problem, ProblemsError, without_secrets
from preceptor.utils.files import beginning, new_folder, replacing
from preceptor.utils.process import core_count
from preceptor.utils.results import strict_json
from preceptor.utils.text import Progress
from preceptor.version import __version__

RECORD, STAMPED = "plant.json", "stamped"
Pixels = NDArray[np.uint8]
# The order is part of the random streams.
PLANTED_SPLITS = ("train", "val")
# A map of a person can have compression noise or a faint tail nearly everywhere: its region is
# where it is above this share of its largest value.
_MAP_LEVEL = 0.05
# A cell of the stamp's glyphs has one pixel in an image of 64 pixels, as in the forged photographs.
_STAMP_UNIT = 64


class Box(NamedTuple):
    """Rectangle of pixels: row and column of the first one, height and width."""

    top: int
    left: int
    height: int
    width: int


class PlantSettings(Settings):
    """Settings of a planted shortcut."""

    place: StampPlace = "moving"  # uniform over all places off the human map, or lower right
    rate: Fraction = 1.0  # of the images of the class, in train and in val each
    label: str | None = None  # None = the only class with human maps
    strength: Annotated[float, Field(gt=0, le=255)] = 32.0  # gray levels of 255
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Planted:
    """Written manifest."""

    manifest: Path
    images: int  # of all classes and splits
    settings: PlantSettings
    splits: dict[str, tuple[int, int]]  # images of the class, and those with a stamp, by split
    marks: dict[str, Box]  # stamp by name of the image
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
    """Write a manifest with stamped images, in which a shortcut is planted."""
    to, settings = Path(to), settings or PlantSettings()
    settings = settings.model_copy(update={"label": _label(manifest, settings.label)})
    target, table = new_folder(to), manifest.table
    parquet = manifest.source is not None and manifest.source.suffix.lower() in (".parquet", ".pq")
    name = "manifest.parquet" if parquet else "manifest.csv"
    with replacing(target, flush=False, new=True) as partial:
        (partial / STAMPED).mkdir(parents=True)
        files, marks = table["path"].copy(), {}
        chosen = _chosen_rows(manifest, settings).tolist()
        written = _write_stamped(manifest, partial, chosen, settings, workers or core_count())
        for done, (row, (file, mark)) in enumerate(zip(chosen, written, strict=True), 1):
            files[row], marks[row] = file, mark
            if progress is not None:
                progress(done, len(chosen))
        Manifest(table.assign(path=files.astype("str")), partial).write(partial / name)
        planted = _summary(manifest, to / name, settings, marks)
        record = {"version": __version__, "settings": settings.model_dump(mode="json")}
        (partial / RECORD).write_text(strict_json(record) + "\n", encoding="utf-8")
    return planted


def _write_stamped(
    manifest: Manifest, folder: Path, rows: list[int], settings: PlantSettings, workers: int
) -> Iterator[tuple[str, Box | None]]:
    """Image of each row with its stamp; the image itself and None if there is no place."""
    images, maps = (manifest.table[column].tolist() for column in ("path", "saliency"))
    problems: dict[int, Problem] = {}

    def stamped(row: int) -> tuple[str, Box | None]:
        try:
            pixels, mark = _marked(images[row], maps[row], settings, row)
        except ImageError as error:
            column = "path" if error.path == images[row] else "saliency"
            what = f"{column} {os.path.basename(error.path)}: {error.reason}"
            name = str(manifest.table["name"].iloc[row])
            problems[row] = Problem(name, what, "replace or remove it")
            return "", None
        if mark is None:
            return images[row], None
        stem = beginning(re.sub(r"[^\w.-]+", "_", Path(without_secrets(images[row])).stem), 80)
        file = folder / STAMPED / f"{row:06d}-{stem}.png"
        # Level 1: higher levels take several times as long for a few percent.
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        Image.fromarray(flat).save(file, "PNG", compress_level=1)
        return str(file), mark

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(stamped, rows)
    if problems:
        source = str(manifest.source or manifest.root)
        raise ProblemsError(source, [problems[row] for row in sorted(problems)])


def _marked(
    path: str, map_path: str, settings: PlantSettings, row: int
) -> tuple[Pixels, Box | None]:
    """Pixels of an image with its stamp; None if the human map leaves no place."""
    pixels = _pixels(path)
    shape = pixels.shape[0], pixels.shape[1]
    cell = max(1, round(min(shape) / _STAMP_UNIT))  # side in pixels; a stroke is one cell wide
    margin = cell * STAMP_MARGIN
    high, wide = (cell * side for side in STAMP_SHAPE)
    window = high + 2 * margin, wide + 2 * margin
    if shape[0] < window[0] or shape[1] < window[1]:
        raise ImageError(
            path,
            f"{shape[1]} × {shape[0]} pixels, smaller than a stamp with its margin, "
            f"{window[1]} × {window[0]}",
        )
    region = np.zeros(shape, bool)
    if map_path:
        values = decode_map(map_path)
        above = Image.fromarray((values > _MAP_LEVEL * values.max()).astype(np.float32))
        region = np.asarray(above.resize((shape[1], shape[0]), Image.Resampling.BOX)) > 0
    top, left = shape[0] - window[0], shape[1] - window[1]
    if settings.place == "moving":
        places = free_places(region, window)
        if not len(places):
            return pixels, None
        generator = np.random.default_rng([settings.seed, 2, row])
        top, left = places[generator.integers(len(places))].tolist()
    box = Box(top + margin, left + margin, high, wide)
    return _stamped(pixels, settings.strength, box), box


def _stamped(pixels: Pixels, strength: float, box: Box) -> Pixels:
    """Copy of (H, W, C) pixels with a stamp: glyphs are brighter, gaps are darker."""
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    scale = box.height // STAMP_SHAPE[0]
    glyphs = (2 * STAMP - 1).repeat(scale, axis=0).repeat(scale, axis=1)[..., None]
    marked = pixels.copy()
    marked[rows, columns] = np.rint(np.clip(pixels[rows, columns] + strength * glyphs, 0, 255))
    return marked


def _pixels(path: str) -> Pixels:
    """Pixels of an image, (H, W, 1 or 3), as the library decodes them."""
    pixels = decode_image(path, 3)
    return pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels


def _summary(
    manifest: Manifest, path: Path, settings: PlantSettings, marks: dict[int, Box | None]
) -> Planted:
    """Result of `plant`, from the stamp of each chosen row; None = no place."""
    table = manifest.table
    names = {row: str(table["name"].iloc[row]) for row in marks}
    splits = {}
    for split in PLANTED_SPLITS:
        inside = (table["split"] == split).to_numpy(bool)
        count = int((inside & (table["label"] == settings.label).to_numpy(bool)).sum())
        splits[split] = count, sum(inside[row] for row, box in marks.items() if box is not None)
    marked = {split for split, (_, count) in splits.items() if count}
    return Planted(
        path,
        len(manifest),
        settings,
        splits,
        {names[row]: box for row, box in marks.items() if box is not None},
        tuple(names[row] for row, box in marks.items() if box is None),
        bool(set(manifest.eval_splits("val")) - marked),
    )


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
