"""Annotations in tables: fixations of an eye tracker, and the UND CYBORG release (Notre Dame)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.annotations.files import ImageFiles
from preceptor.annotations.masks import place_of
from preceptor.annotations.shapes import (
    AnnotatedImage,
    Annotation,
    ImportedAnnotations,
    Log,
    Mask,
    Pixels,
)
from preceptor.data.checks import Findings, RawTable, read_table, text
from preceptor.data.images import image_size
from preceptor.data.manifest import Checks, Manifest, check_raw
from preceptor.errors import InputError
from preceptor.metrics.split_names import kind_or_none

_UND_HEADER = ["split", "label", "path"]


def read_cells(
    path: Path, required: Sequence[str]
) -> tuple[pd.DataFrame, NDArray[np.int64], Findings]:
    """Cells of a table as stripped text, the number of each row, and the findings to add to."""
    findings = Findings(str(path))
    raw = read_table(path, findings)
    columns = ", ".join(map(str, raw.frame.columns))[:200]
    for name in required:
        if name not in raw.frame.columns:
            fix = f"add it; the first row must contain the column names (found: {columns})"
            findings.add(None, f"column {name!r} is missing", fix, where="the header")
    findings.raise_if_any()
    cells = {str(name): text(raw.frame[name]).str.strip() for name in raw.frame.columns}
    return pd.DataFrame(cells), raw.rows, findings


@dataclass(frozen=True)
class Gaze:
    """How positions on the screen become positions on the image."""

    sigma: float  # pixels of the Gaussian of a fixation, on the screen, else on the image
    # Left, top, width and height of the image on the screen; None = positions are on the image.
    display: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"sigma is {self.sigma:g}; write a number above 0")
        if self.display is not None and not min(self.display[2:]) > 0:
            raise InputError(f"display is {self.display}; write left, top, width, height")


def read_fixations(source: Path | str, images: Path | str, gaze: Gaze) -> ImportedAnnotations:
    """CSV with `image,x,y` and, if known, `duration`, `annotator` and `label`.

    The map of an annotator is the sum of a Gaussian at each fixation, weighted by its duration,
    divided by its largest value. Fixations beside the image are left out and counted in a note.
    """
    path = Path(source)
    files = ImageFiles(Path(images))
    table = _fixations(path)
    persons = sorted(set(table["annotator"]) - {""})

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for name, rows in table.groupby("image", sort=False):
            where = f"row {rows['row'].iloc[0]}"
            with log.part(f"{where} {name}", "replace it"):
                size = image_size(files.folder / files.find(str(name)))
                shapes = []
                for person, own in rows.groupby("annotator", sort=True):
                    pixels = _density(own, size, gaze, log)
                    if pixels is not None:
                        shapes.append(Annotation(Mask(pixels), "", str(person)))
                yield AnnotatedImage(
                    str(name),
                    size,
                    tuple(shapes),
                    tuple(sorted(set(rows["label"]) - {""})),
                    examined=True,
                    annotators=tuple(sorted(set(rows["annotator"]) - {""})),
                    where=where,
                )

    count = int(table["image"].nunique())
    return ImportedAnnotations("fixations", path, read, (), persons, count)


def _fixations(path: Path) -> pd.DataFrame:
    """Rows with image, row, x, y, duration, annotator and label."""
    cells, rows, findings = read_cells(path, ("image", "x", "y"))
    table = pd.DataFrame({"image": cells["image"], "row": rows})
    for name, least in (("x", -math.inf), ("y", -math.inf), ("duration", 0.0)):
        words = cells[name] if name in cells else pd.Series("1", cells.index)
        table[name] = pd.to_numeric(words, errors="coerce").astype("float64")
        values = table[name].to_numpy()
        for index in np.flatnonzero(~np.isfinite(values) | (values <= least)).tolist():
            fix = "write a finite number" if least < 0 else "write a number above 0"
            findings.add(rows[index], f"{name} is {words.iloc[index]!r}", fix)
    for name in ("annotator", "label"):
        table[name] = cells.get(name, "")
    findings.add_all(rows, table["image"] == "", "image is empty", "write the name of the image")
    findings.raise_if_any()
    return table


def _density(rows: pd.DataFrame, size: tuple[int, int], gaze: Gaze, log: Log) -> Pixels | None:
    """(height, width) sum of weighted Gaussians at pixel centers, the largest value being 255.

    None if no fixation lies on the image.
    """
    points = rows[["x", "y"]].to_numpy(np.float64)
    spread = np.array([gaze.sigma, gaze.sigma])
    if gaze.display is not None:
        left, top, width, height = gaze.display
        scale = np.array([size[0] / width, size[1] / height])
        points, spread = (points - (left, top)) * scale, spread * scale
    inside = ((points >= 0) & (points < size)).all(axis=1)
    if not inside.all():
        log.note("fixations beside the image are not drawn", int((~inside).sum()))
    if not inside.any():
        return None
    points, weights = points[inside], rows["duration"].to_numpy(np.float64)[inside]
    across, down = (
        np.exp(-0.5 * ((np.arange(size[axis]) + 0.5 - points[:, axis, None]) / spread[axis]) ** 2)
        for axis in (0, 1)
    )
    total = (down * weights[:, None]).T @ across
    levels: Pixels = np.rint(total * (255 / max(float(total.max()), 1e-300))).astype(np.uint8)
    return levels


def parse_display(value: str) -> tuple[float, ...]:
    """Four numbers of `--display`, separated by commas."""
    try:
        numbers = tuple(float(one) for one in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise InputError(f"--display {value!r}: write 4 numbers, separated by commas")
    return numbers


def read_und(
    train_csv: Path,
    test_csvs: Sequence[Path],
    image_root: Path,
    heatmaps: Path | None,
    *,
    join: str | None = None,
    **checks: Unpack[Checks],
) -> Manifest:
    """Read the release in its published form: CSVs without header, and a folder of heat maps.

    The rows are `split,class,/path`. A heat map has the name of its image with any suffix, at the
    same relative path under `heatmaps` or, for training and validation images, anywhere in it. The
    folder of an image is its source. The split `test` of the training CSV becomes `val`; test sets
    are named by their files, unless `join` names one set of all, whose sources are the files: the
    published CSVs have images of one class each, so that only together they have an AUC.
    """
    if join is not None and kind_or_none(join) != "test":
        raise InputError(f"join {join!r} is no test set; name it test or test-NAME")
    parts: list[pd.DataFrame] = []
    row_names: list[str] = []
    named: dict[str, Path] = {}
    for csv_path in map(Path, (train_csv, *test_csvs)):
        read = Findings(str(csv_path), partial("{} row {}".format, csv_path.name))
        raw = read_table(csv_path, read, _UND_HEADER)
        read.raise_if_any()
        part = raw.frame.assign(split=raw.frame["split"].str.strip())
        part["path"] = part["path"].str.strip().str.lstrip("/")
        body = (part["split"].str.lower() != "split").to_numpy(bool)  # a header after all
        part = part[body].copy()
        folders = [str(PurePosixPath(path).parent) for path in part["path"]]
        part["source"] = ["" if folder == "." else folder for folder in folders]
        if csv_path == Path(train_csv):
            part["split"] = part["split"].replace("test", "val")  # where the authors select
        else:
            stem = csv_path.stem
            is_test = kind_or_none(stem) == "test"
            name = stem if is_test else f"test-{re.sub('^test[^a-zA-Z0-9]+', '', stem)}"
            part["split"] = name
            if join is not None:
                part["split"], part["source"] = join, stem
            if (first := named.setdefault(name, csv_path)) != csv_path:
                what = f"its test set would be {name}, as the one of {first}"
                raise InputError(f"{csv_path}: {what}; rename one of the files")
        parts.append(part)
        row_names += map(read.name, raw.rows[body])
    frame = pd.concat(parts, ignore_index=True)
    findings = Findings(str(train_csv), row_names.__getitem__)
    for where, folder in (("image root", image_root), ("heat maps", heatmaps)):
        if folder is not None and not Path(folder).is_dir():
            findings.add(None, f"{folder} is not a folder", "correct the path", where)
    frame["saliency"] = ""
    if heatmaps is not None and Path(heatmaps).is_dir():
        frame["saliency"] = _und_maps(frame, Path(heatmaps).absolute(), findings)
    table = RawTable(frame, np.arange(len(frame), dtype=np.int64))
    checks.setdefault("need", ("train", "val", "test") if test_csvs else ("train", "val"))
    manifest = check_raw(table, Path(image_root).absolute(), findings, **checks)
    return replace(manifest, source=Path(train_csv))


def _und_maps(frame: pd.DataFrame, folder: Path, findings: Findings) -> list[str]:
    """Heat map of each row, "" for none."""
    maps = [""] * len(frame)
    by_place: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for name in ImageFiles(folder).names:
        by_place.setdefault(place_of(name), []).append(str(folder / name))
        by_name.setdefault(PurePosixPath(name).stem, []).append(str(folder / name))
    claimed: dict[str, int] = {}
    for row, (path, split) in enumerate(zip(frame["path"], frame["split"], strict=True)):
        files = by_place.get(place_of(path or "."), [])
        if not files and kind_or_none(split) != "test":
            files = by_name.get(PurePosixPath(path).stem, [])
        if len(files) > 1:
            what = f"{path!r} has {len(files)} heat maps ({files[0]}, {files[1]}, …)"
            findings.add(row, what, "keep one file with this name")
        elif files and files[0] in claimed:
            first = findings.name(claimed[files[0]])
            what = f"{path!r} and {first} have one heat map ({files[0]})"
            findings.add(row, what, "use the folder structure of the images for the heat maps")
        elif files:
            claimed[files[0]] = row
            maps[row] = files[0]
    return maps
