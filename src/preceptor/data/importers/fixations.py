"""Importer of fixations of an eye tracker: density of the gaze on each image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from preceptor.data.checks import text
from preceptor.data.images import ImageError, image_size
from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    Floats,
    ImportedAnnotations,
    Log,
    Mask,
    Pixels,
)
from preceptor.data.table import Findings, read_table
from preceptor.errors import InputError


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
    display: tuple[float, float, float, float] | None = None
    positions: Literal["pixels", "shares"] = "pixels"
    screen: tuple[float, float] | None = None

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
        InputError: `images` is not a folder.
    """
    path = Path(source)
    files = ImageFiles(Path(images))
    findings = Findings(str(path))
    raw = read_table(path, findings)
    frame = raw.frame
    for name in ("image", "x", "y"):
        if name not in frame.columns:
            found = ", ".join(map(str, frame.columns))[:200]
            findings.add(None, f"column {name!r} is missing", f"add it (found: {found})", "header")
    findings.raise_if_any()
    table = pd.DataFrame({"image": text(frame["image"]).str.strip(), "row": raw.rows})
    for name in ("x", "y", "duration"):
        cells = text(frame[name]).str.strip() if name in frame else pd.Series("1", frame.index)
        values = pd.to_numeric(cells, errors="coerce").astype("float64")
        wrong = ~np.isfinite(values.to_numpy())
        if name == "duration":
            wrong |= values.to_numpy() <= 0
        for index in np.flatnonzero(wrong).tolist():
            fix = "write a number above 0" if name == "duration" else "write a finite number"
            findings.add(raw.rows[index], f"{name} is {cells.iloc[index]!r}", fix)
        table[name] = values
    for name in ("annotator", "label"):
        table[name] = text(frame[name]).str.strip() if name in frame else ""
    for index in np.flatnonzero((table["image"] == "").to_numpy(bool)).tolist():
        findings.add(raw.rows[index], "image is empty", "write the name of the image")
    findings.raise_if_any()
    persons = sorted(set(table["annotator"]) - {""})

    def read(log: Log) -> Iterator[AnnotatedImage]:
        for name, rows in table.groupby("image", sort=False):
            where = f"row {rows['row'].iloc[0]}"
            try:
                size = image_size(files.folder / files.find(str(name)))
            except (LookupError, ImageError) as error:
                log.error(f"{where} {name}", error, "replace it")
                continue
            shapes = []
            for person, own in rows.groupby("annotator", sort=True):
                map_ = _density(own, size, gaze, log)
                if map_ is not None:
                    shapes.append(Annotation(Mask(map_), "", str(person)))
            seen = tuple(sorted(set(rows["annotator"]) - {""}))
            yield AnnotatedImage(
                str(name),
                size,
                tuple(shapes),
                tuple(sorted(set(rows["label"]) - {""})),
                examined=True,
                annotators=seen,
                where=where,
            )

    count = int(table["image"].nunique())
    return ImportedAnnotations("fixations", path, read, annotators=persons, count=count)


def _density(rows: pd.DataFrame, size: tuple[int, int], gaze: Gaze, log: Log) -> Pixels | None:
    """Density on an image, scaled to 255; None if no fixation lies on it."""
    points = rows[["x", "y"]].to_numpy(np.float64)
    spread = np.array([gaze.sigma, gaze.sigma])
    if gaze.unit == "degrees":
        spread = spread * float(gaze.pixels_per_degree or 1)
    if gaze.display is None:
        if gaze.positions == "shares":
            points = points * size
    else:
        if gaze.positions == "shares":
            points = points * (gaze.screen or (1, 1))
        left, top, width, height = gaze.display
        scale = np.array([size[0] / width, size[1] / height])
        points, spread = (points - (left, top)) * scale, spread * scale
    inside = ((points >= 0) & (points < size)).all(axis=1)
    if not inside.all():
        log.note("fixations beside the image are not drawn", int((~inside).sum()))
    if not inside.any():
        return None
    return gaussians(points[inside], rows["duration"].to_numpy(np.float64)[inside], spread, size)


def gaussians(points: Floats, weights: Floats, spread: Floats, size: tuple[int, int]) -> Pixels:
    """Sum of weighted Gaussians at pixel centers, divided by its largest value, times 255.

    Args:
        points: (n, 2).
        weights: (n,) above 0.
        spread: (2,) standard deviations in x and y.
        size: Width and height.

    Returns:
        uint8 of shape (height, width).
    """
    width, height = size
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    across = np.exp(-0.5 * ((columns - points[:, :1]) / spread[0]) ** 2)
    down = np.exp(-0.5 * ((rows - points[:, 1:]) / spread[1]) ** 2)
    total = (down * weights[:, None]).T @ across
    scaled: Pixels = np.rint(total * (255 / max(float(total.max()), 1e-300))).astype(np.uint8)
    return scaled


def parse_display(text: str) -> tuple[float, float, float, float]:
    """Value of `--display`: left, top, width and height.

    Raises:
        InputError: It is another text.
    """
    left, top, width, height = _numbers("--display", text, 4)
    return left, top, width, height


def parse_screen(text: str) -> tuple[float, float]:
    """Value of `--screen`: width and height.

    Raises:
        InputError: It is another text.

    Example:
        >>> parse_screen("1920,1080")
        (1920.0, 1080.0)
    """
    width, height = _numbers("--screen", text, 2)
    return width, height


def _numbers(option: str, text: str, count: int) -> list[float]:
    try:
        found = [float(one) for one in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise InputError(f"{option} {text!r}: write {count} numbers, separated by commas")
    return found
