"""Export of a manifest's maps as a folder in the format of another tool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from preceptor.data.exporters.coco import write_coco
from preceptor.data.exporters.cvat import write_cvat
from preceptor.data.exporters.images import ExportedImage, ExportOptions, Writer, mask_of
from preceptor.data.exporters.labelme import write_labelme
from preceptor.data.exporters.labelstudio import write_labelstudio
from preceptor.data.exporters.masks import write_masks
from preceptor.data.images import ImageError, decode_map, image_size
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import resample
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.runtime.progress import Progress
from preceptor.runtime.replace_file import replacing

FORMATS: dict[str, Writer] = {
    "masks": write_masks,
    "coco": write_coco,
    "labelstudio": write_labelstudio,
    "labelme": write_labelme,
    "cvat": write_cvat,
}
"""Writers by the name of the format."""
LABELS = "labels.csv"
# Largest value, of 1, of a map whose gray levels have no other meaning than inside and outside.
_LEAST_LEVEL = 1.5 / 255
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


@dataclass(frozen=True)
class ExportSummary:
    """What an export has written.

    Args:
        folder: The folder.
        images, marked: Numbers of images, and of those with marks.
    """

    folder: Path
    images: int
    marked: int


def write_export(
    name: str, images: Iterable[ExportedImage], to: Path, options: ExportOptions
) -> ExportSummary:
    """Write images with their maps in a format, and `labels.csv` for the way back.

    The folder appears when it is complete.

    Args:
        name: Key of `FORMATS`.
        images: Images with their maps; problems are raised by the iteration.
        to: Output folder, new or empty.
        options: Options.

    Raises:
        InputError: The folder exists, or there are no images.
    """
    to = to.absolute()
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise InputError(f"{to} exists already; name a new folder with --to")
    if not to.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    rows: list[dict[str, str]] = []
    marked = 0

    def noted() -> Iterator[ExportedImage]:
        nonlocal marked
        for image in images:
            rows.append(
                {
                    "path": image.name,
                    "label": image.label,
                    "split": image.split,
                    "source": image.source,
                    "group": image.group,
                }
            )
            marked += bool(mask_of(image, options).any())
            yield image

    with replacing(to) as partial:
        partial.mkdir()
        FORMATS[name](noted(), partial, options)
        if not rows:
            raise InputError("there is no image to export; annotate some, or add --all")
        frame = pd.DataFrame(rows)
        empty = [c for c in ("split", "source", "group") if (frame[c] == "").all()]
        frame.drop(columns=empty).to_csv(partial / LABELS, index=False)
    return ExportSummary(to, len(rows), marked)


def manifest_images(
    manifest: Manifest,
    *,
    every: bool = False,
    positive: Iterable[str] = (),
    progress: Progress | None = None,
) -> Iterator[ExportedImage]:
    """Images of a manifest with their human maps.

    A map of another size than its image is resampled by areas.

    Args:
        manifest: Manifest.
        every: Whether to include images that nobody examined, without marks.
        positive: Classes whose maps are exported; empty = all.
        progress: Function called with (done, total).

    Raises:
        ProblemsError: At the end, if images or maps cannot be read; lists all.
    """
    wanted = set(positive)
    if unknown := sorted(wanted - set(manifest.classes)):
        known = ", ".join(manifest.classes)
        raise InputError(f"--positive {unknown[0]!r}: no image has this label; known: {known}")
    table = manifest.table if every else manifest.table[manifest.annotated_mask]

    def read(row: pd.Series) -> ExportedImage:
        path = str(row["path"])
        width, height = image_size(path)
        pixels = None
        if row["saliency"] and (not wanted or row["label"] in wanted):
            pixels = _with_levels(decode_map(str(row["saliency"])))
            if pixels.shape != (height, width):
                maps = torch.from_numpy(pixels)[None]
                pixels = resample(maps, _UNIT, _UNIT, (height, width))[0].numpy()
        return ExportedImage(
            str(row["name"]),
            path,
            (width, height),
            str(row["label"]),
            str(row["split"]),
            str(row["source"]),
            str(row["group"]),
            pixels,
        )

    yield from without_problems(table, read, str(manifest.source or manifest.root), progress)


def _with_levels(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map from 0 to 1; one of the values 0 and 1 of 255, as many programs write masks, is scaled.

    The share of annotators who marked a pixel is larger.
    """
    largest = float(pixels.max())
    return pixels / np.float32(largest) if 0 < largest < _LEAST_LEVEL else pixels


def without_problems(
    table: pd.DataFrame,
    read: Callable[[pd.Series], ExportedImage],
    source: str,
    progress: Progress | None,
) -> Iterator[ExportedImage]:
    """Images of the rows of a table; after a problem, only further problems are looked for.

    Raises:
        ProblemsError: At the end, if an image or map cannot be read; lists all.
    """
    problems: list[Problem] = []
    for done, (_, row) in enumerate(table.iterrows(), 1):
        try:
            image = read(row)
        except ImageError as error:
            problems.append(Problem(str(row["name"]), str(error), "replace the file"))
        else:
            if not problems:
                yield image
        if progress is not None:
            progress(done, len(table))
    if problems:
        raise ProblemsError(source, problems)
