"""Annotations in tables: fixations of an eye tracker, and the UND CYBORG release (Notre Dame)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, Unpack

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
from preceptor.data.checks import note, text
from preceptor.data.images import image_size
from preceptor.data.manifest import Checks, Manifest, check_raw
from preceptor.data.table import Findings, RawTable, read_table
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.metrics.split_names import kind_or_none

_UND_HEADER = ["split", "label", "path"]
# The authors select their model on the rows named "test".
_UND_SPLITS = {"train": "train", "test": "val", "val": "val"}


def read_cells(
    path: Path, required: Sequence[str]
) -> tuple[pd.DataFrame, NDArray[np.int64], Findings]:
    """Cells of a table as stripped text, the number of each row, and the findings to add to.

    Raises:
        ProblemsError: It cannot be read, or a required column is missing.
    """
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
    """How positions on the screen become positions on the image.

    Args:
        sigma: Standard deviation of the Gaussian of a fixation, in pixels of the screen (of the
            image, without `display`), or in degrees of visual angle.
        unit: Unit of `sigma`.
        pixels_per_degree: Pixels of the screen per degree of visual angle; needed for degrees.
        display: Left, top, width and height of the image on the screen; None = positions are on
            the image itself.
        positions: `pixels`, or `shares` (0 to 1) of the screen, or of the image without `display`.
        screen: Width and height of the screen in pixels; needed for shares with `display`.
    """

    sigma: float
    unit: Literal["pixels", "degrees"] = "pixels"
    pixels_per_degree: float | None = None
    display: tuple[float, ...] | None = None
    positions: Literal["pixels", "shares"] = "pixels"
    screen: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        def positive(value: float | None) -> bool:
            return value is not None and math.isfinite(value) and value > 0

        if not positive(self.sigma):
            raise InputError(f"sigma is {self.sigma:g}; write a number above 0")
        if self.unit == "degrees" and not positive(self.pixels_per_degree):
            raise InputError("sigma is in degrees; give the pixels per degree of the screen")
        if self.display is not None and not all(map(positive, self.display[2:])):
            raise InputError(f"display is {self.display}; write left, top, width, height")
        if self.positions == "shares" and self.display is not None and self.screen is None:
            raise InputError("positions are shares of the screen; give its size in pixels")


def read_fixations(source: Path | str, images: Path | str, gaze: Gaze) -> ImportedAnnotations:
    """CSV with `image,x,y` and, if known, `duration`, `annotator` and `label`.

    The map of an annotator is the sum of a Gaussian at each fixation, weighted by its duration,
    divided by its largest value. Fixations beside the image are left out and counted in a note.

    Args:
        source: CSV or Parquet file.
        images: Folder of the images.
        gaze: Geometry of the screen and width of the Gaussian.

    Raises:
        ProblemsError: The table is invalid; lists all problems by row.
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
    note(findings, rows, table["image"] == "", "image is empty", "write the name of the image")
    findings.raise_if_any()
    return table


def _density(rows: pd.DataFrame, size: tuple[int, int], gaze: Gaze, log: Log) -> Pixels | None:
    """(height, width) sum of weighted Gaussians at pixel centers, the largest value being 255.

    None if no fixation lies on the image.
    """
    points = rows[["x", "y"]].to_numpy(np.float64)
    spread = np.array([gaze.sigma, gaze.sigma])
    if gaze.unit == "degrees":
        spread = spread * float(gaze.pixels_per_degree or 1)
    if gaze.positions == "shares":
        points = points * (size if gaze.display is None else gaze.screen or (1, 1))
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
    return np.rint(total * (255 / max(float(total.max()), 1e-300))).astype(np.uint8)


def parse_numbers(option: str, value: str, count: int) -> tuple[float, ...]:
    """Numbers of an option, separated by commas.

    Example:
        >>> parse_numbers("--screen", "1920,1080", 2)
        (1920.0, 1080.0)
    """
    try:
        numbers = tuple(float(one) for one in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(f"{option} {value!r}: write {count} numbers, separated by commas")
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
    folder of an image is its source.

    Args:
        train_csv: CSV with the splits `train` and `test`; the latter becomes the split `val`.
        test_csvs: CSVs of test sets. The name of a set is that of its file, independently of the
            splits in it: gan9.csv, test-gan9.csv and test_gan9.csv all give test-gan9.
        image_root: Base folder of the paths, with or without leading slash.
        heatmaps: Folder of heat maps, or None.
        join: Name of one test set of the images of all `test_csvs`, each of which is then a source
            with the name of its file. The published CSVs have images of one class each, so that
            only together they have an AUC. None = a test set for each CSV.
        checks: What is checked, see `Checks`; splits without rows in the files are not needed.

    Raises:
        ProblemsError: The data is invalid; lists all problems by file and row.
        InputError: `join` is no name of a test set.
    """
    if join is not None and kind_or_none(join) != "test":
        raise InputError(f"join {join!r} is no test set; name it test or test-NAME")
    problems: list[Problem] = []
    parts: list[pd.DataFrame] = []
    row_names: list[str] = []
    named: dict[str, Path] = {}
    for csv_path in map(Path, (train_csv, *test_csvs)):
        part, numbers = _und_rows(csv_path, problems)
        part["path"] = part["path"].str.strip().str.lstrip("/")
        folders = [str(PurePosixPath(path).parent) for path in part["path"]]
        part["source"] = ["" if folder == "." else folder for folder in folders]
        if csv_path == Path(train_csv):
            part["split"] = part["split"].map(lambda name: _UND_SPLITS.get(name, name))
        else:
            stem = csv_path.stem
            is_test = kind_or_none(stem) == "test"
            name = stem if is_test else f"test-{re.sub('^test[^a-zA-Z0-9]+', '', stem)}"
            part["split"] = name
            if join is not None:
                part["split"], part["source"] = join, stem
            if name in named:
                what = f"its test set would be {name}, as that of {named[name]}"
                problems.append(Problem(str(csv_path), what, "rename one of the files"))
            named[name] = csv_path
        parts.append(part)
        row_names += [f"{csv_path.name} row {number}" for number in numbers]
    frame = pd.concat(parts, ignore_index=True)
    if not len(frame):
        raise ProblemsError(str(train_csv), problems)

    findings = Findings(str(train_csv), row_names.__getitem__)
    for problem in problems:
        findings.add(None, problem.what, problem.fix, where=problem.where)
    if not Path(image_root).is_dir():
        findings.add(None, f"{image_root} is not a folder", "correct the path", where="image root")
    frame["saliency"] = _und_maps(frame, heatmaps, findings)
    raw = RawTable(frame, np.arange(len(frame), dtype=np.int64))
    checks.setdefault("need", ("train", "val", "test") if test_csvs else ("train", "val"))
    manifest = check_raw(raw, Path(image_root).absolute(), findings, **checks)
    return replace(manifest, source=Path(train_csv))


def _und_rows(path: Path, problems: list[Problem]) -> tuple[pd.DataFrame, list[int]]:
    """Rows of a file and their numbers; problems are appended to `problems`."""
    findings = Findings(str(path), lambda row: f"{path.name} row {row}")
    try:
        raw = read_table(path, findings, _UND_HEADER)
    except ProblemsError as error:
        for problem in error.problems:
            where = problem.where if path.name in problem.where else f"{path}, {problem.where}"
            problems.append(replace(problem, where=where))
        return pd.DataFrame({name: [] for name in _UND_HEADER}, dtype="str"), []
    problems += findings.problems
    frame = raw.frame.assign(split=raw.frame["split"].str.strip())
    body = (frame["split"].str.lower() != "split").to_numpy(bool)  # a header after all
    return frame[body], raw.rows[body].tolist()


def _und_maps(frame: pd.DataFrame, heatmaps: Path | None, findings: Findings) -> list[str]:
    """Heat map of each row, "" for none."""
    maps = [""] * len(frame)
    if heatmaps is None:
        return maps
    folder = Path(heatmaps).absolute()
    if not folder.is_dir():
        findings.add(None, f"{heatmaps} is not a folder", "correct the path", where="heat maps")
        return maps
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
