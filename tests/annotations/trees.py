"""Folders of images and annotation files for the tests of the importers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preceptor.annotations.shapes import AnnotatedImage, ImportedAnnotations, Log, Pixels
from preceptor.annotations.write import ImportOptions, ImportSummary, write_import
from preceptor.data.manifest import Manifest

ORIENTATION = 0x0112


def save_image(path: Path, width: int = 40, height: int = 30, orientation: int = 1) -> Path:
    """An image of noise, with an EXIF orientation; width and height are those as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def save_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """A COCO file with the classes crack (1) and rust (2); ids are filled in."""
    return {
        "images": [{"id": n, "width": 40, "height": 30} | one for n, one in enumerate(images)],
        "annotations": [
            {"id": n, "image_id": 0, "category_id": 1} | one for n, one in enumerate(annotations)
        ],
        "categories": [{"id": 1, "name": "crack"}, {"id": 2, "name": "rust"}],
    }


def images_of(imported: ImportedAnnotations) -> dict[str, AnnotatedImage]:
    return {one.name: one for one in imported}


def notes_of(imported: ImportedAnnotations) -> dict[str, int]:
    log = Log()
    list(imported.read(log))
    return log.notes


def imported_maps(
    imported: ImportedAnnotations, images: Path, to: Path, **options: Any
) -> tuple[ImportSummary, dict[str, Pixels]]:
    """Summary of an import, and the maps of its manifest by the name of the image."""
    summary = write_import(imported, images, to, ImportOptions(**options))
    table = Manifest.read(to / "manifest.csv", need=()).table
    maps = {
        str(name): np.asarray(Image.open(path).convert("L"))
        for name, path in zip(table["name"], table["saliency"], strict=True)
        if path
    }
    return summary, maps


def iou(one: Pixels, other: Pixels) -> float:
    a, b = one > 0, other > 0
    return float((a & b).sum() / max((a | b).sum(), 1))
