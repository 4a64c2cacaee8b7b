"""Fixations of an eye tracker: density of the gaze on each image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.annotations.files import ImageFiles
from preceptor.annotations.shapes import (
    AnnotatedImage,
    Annotation,
    ImportedAnnotations,
    Log,
    Mask,
    Pixels,
)
from preceptor.data.checks import text
from preceptor.data.images import ImageError, image_size
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
        InputError: `images` is not a folder.
    """
    path = Path(source)
    files = ImageFiles(Path(images))
    table = _table(path)

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

    persons = sorted(set(table["annotator"]) - {""})
    count = int(table["image"].nunique())
    return ImportedAnnotations("fixations", path, read, (), persons, count)


def _table(path: Path) -> pd.DataFrame:
    """Rows with image, row, x, y, duration, annotator and label."""
    findings = Findings(str(path))
    raw = read_table(path, findings)
    frame = raw.frame
    for name in ("image", "x", "y"):
        if name not in frame.columns:
            columns = ", ".join(map(str, frame.columns))[:200]
            findings.add(
                None, f"column {name!r} is missing", f"add it (found: {columns})", "header"
            )
    findings.raise_if_any()
    table = pd.DataFrame({"image": text(frame["image"]).str.strip(), "row": raw.rows})
    for name, least in (("x", -math.inf), ("y", -math.inf), ("duration", 0.0)):
        cells = text(frame[name]).str.strip() if name in frame else pd.Series("1", frame.index)
        table[name] = pd.to_numeric(cells, errors="coerce").astype("float64")
        values = table[name].to_numpy()
        for index in np.flatnonzero(~np.isfinite(values) | (values <= least)).tolist():
            fix = "write a finite number" if least < 0 else "write a number above 0"
            findings.add(raw.rows[index], f"{name} is {cells.iloc[index]!r}", fix)
    for name in ("annotator", "label"):
        table[name] = text(frame[name]).str.strip() if name in frame else ""
    for index in np.flatnonzero((table["image"] == "").to_numpy(bool)).tolist():
        findings.add(raw.rows[index], "image is empty", "write the name of the image")
    findings.raise_if_any()
    return table


def _density(rows: pd.DataFrame, size: tuple[int, int], gaze: Gaze, log: Log) -> Pixels | None:
    """Density on an image: uint8 of shape (height, width); None if no fixation lies on it.

    It is a sum of weighted Gaussians at pixel centers, divided by its largest value, times 255.
    """
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
    points, weights = points[inside], rows["duration"].to_numpy(np.float64)[inside]
    across, down = (
        np.exp(-0.5 * ((np.arange(size[axis]) + 0.5 - points[:, axis, None]) / spread[axis]) ** 2)
        for axis in (0, 1)
    )
    total = (down * weights[:, None]).T @ across
    levels: NDArray[np.uint8] = np.rint(total * (255 / max(float(total.max()), 1e-300))).astype(
        np.uint8
    )
    return levels


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
