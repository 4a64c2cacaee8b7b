"""Exporter of COCO instances: polygons or run-length encoded masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.exporters.images import ExportedImage, ExportOptions, Region, regions_of
from preceptor.data.importers.coco_rle import encode_string
from preceptor.runtime.strict_json import strict_json


def write_coco(images: Iterable[ExportedImage], folder: Path, options: ExportOptions) -> None:
    """Write `annotations.json`, one annotation for each connected region.

    Polygons of COCO have no holes: a hole is joined to its ring by a cut without width.

    Args:
        images: Images with their maps.
        folder: Folder that is written.
        options: Options.
    """
    classes: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        width, height = image.size
        listed.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for region in regions_of(image, options):
            high, wide = region.mask.shape
            shape = {
                "id": len(shapes) + 1,
                "image_id": number,
                "category_id": classes.setdefault(image.shape_label, len(classes) + 1),
                "segmentation": _segmentation(region, image.size, options),
                "area": int(region.mask.sum()),
                "bbox": [region.x, region.y, wide, high],
                "iscrowd": 0,
            }
            if options.predictions and image.score is not None:
                shape["score"] = round(image.score, 6)
            shapes.append(shape)
    content = {
        "info": {"description": options.model or "preceptor"},
        "images": listed,
        "annotations": shapes,
        "categories": [{"id": number, "name": name} for name, number in classes.items()],
    }
    text = strict_json(content, indent=None) + "\n"
    (folder / "annotations.json").write_text(text, encoding="utf-8")


def _segmentation(region: Region, size: tuple[int, int], options: ExportOptions) -> Any:
    if options.form == "polygons":
        return [region.ring.reshape(-1).tolist()]
    return {"size": [*size[::-1]], "counts": encode_string(_counts(region, size))}


def _counts(region: Region, size: tuple[int, int]) -> list[int]:
    """Counts of a region in its image, column by column, from the pixels of the region alone."""
    width, height = size
    columns, rows = np.nonzero(region.mask.T)
    flat = (columns + region.x) * height + rows + region.y
    first = np.flatnonzero(np.diff(flat, prepend=-2) != 1)  # of each run
    last = np.append(first[1:], len(flat)) - 1
    edges = np.stack([flat[first], flat[last] + 1], axis=1).reshape(-1)
    counts: list[int] = np.diff(edges, prepend=0, append=width * height).tolist()
    return counts if counts[-1] else counts[:-1]
