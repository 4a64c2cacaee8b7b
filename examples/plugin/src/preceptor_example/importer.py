"""An importer: `preceptor data import circles FILE.csv --images DIR --to FOLDER`."""

import csv
from collections.abc import Iterator
from pathlib import Path

from preceptor.annotations.shapes import (
    AnnotatedImage,
    Annotation,
    Ellipse,
    ImportedAnnotations,
    Log,
)


def read_circles(source: Path, images: Path | None) -> ImportedAnnotations:
    """Circles in a CSV file with the columns image, label, x, y and radius, in pixels.

    Args:
        source: The file.
        images: Folder of the images; None = that of the file.
    """

    def read(log: Log) -> Iterator[AnnotatedImage]:
        found: dict[str, list[Annotation]] = {}
        with source.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    x, y, radius = (float(row[key]) for key in ("x", "y", "radius"))
                except (KeyError, TypeError, ValueError):
                    log.problem(f"row {number}", "x, y or radius is no number", "correct it")
                    continue
                circle = Annotation(Ellipse(x, y, radius, radius), row["label"])
                found.setdefault(row["image"], []).append(circle)
        for name, circles in found.items():
            yield AnnotatedImage(name, None, tuple(circles))

    return ImportedAnnotations("circles", source, read)
