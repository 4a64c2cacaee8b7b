"""Folders of images and annotation files for the tests of the importers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from preceptor.annotations.shapes import AnnotatedImage, ImportedAnnotations, Log, Pixels
from preceptor.annotations.write import ImportOptions, ImportSummary, write_import
from preceptor.data.manifest import Manifest
from preceptor.errors import PreceptorError

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


def assert_import_refused(
    read: Callable[[], ImportedAnnotations], images: Path, expected: str
) -> None:
    """An image `a.png` of 40 × 30; the import is refused with a fix, and leaves nothing behind."""
    save_image(images / "a.png")
    before = sorted(images.parent.iterdir())
    with pytest.raises(PreceptorError) as caught:
        imported_maps(read(), images, images.parent / "out")
    assert expected in str(caught.value)
    assert "; " in str(caught.value)
    assert sorted(images.parent.iterdir()) == before


def iou(one: Pixels, other: Pixels) -> float:
    a, b = one > 0, other > 0
    return float((a & b).sum() / max((a | b).sum(), 1))


NAMES = ("a/one.png", "b/one.png", "Zwölf Äpfel.png", "50%25 off.png", "a#b.png", "plain.png")


def regions(seed: int, width: int, height: int) -> np.ndarray:
    """Regions with holes and diagonal neighbors, some at the edge of the image."""
    noise = np.random.default_rng(seed).standard_normal((height, width))
    return ndimage.gaussian_filter(noise, 1 + seed % 3) > 0.05


def marked_manifest(folder: Path, *, gray: bool = False) -> Path:
    """Images with maps; the last one was examined without a mark, one more by nobody."""
    rows = []
    for number, name in enumerate(NAMES):
        width, height = 33 + 7 * number, 45 - 3 * number
        orientation = 6 if name == "a#b.png" else 1
        stored = (height, width) if orientation == 6 else (width, height)
        save_image(folder / "images" / name, *stored, orientation)
        saliency = ""
        if name != NAMES[-1]:
            map_ = regions(number, width, height).astype(np.uint8) * 255
            if gray:
                map_ = np.rint(ndimage.gaussian_filter(map_.astype(float), 2)).astype(np.uint8)
            saliency = f"maps/{number}.png"
            (folder / "maps").mkdir(exist_ok=True)
            Image.fromarray(map_).save(folder / saliency)
        label = "clean" if name == NAMES[-1] else ("crack", "rust & more")[number % 2]
        split, weight = ("train", "val")[number % 2], 1 / (number + 1)
        rows.append((f"images/{name}", label, split, saliency, 1, f"g{number}", weight, number))
    save_image(folder / "images" / "unseen.png")
    rows.append(("images/unseen.png", "clean", "train", "", 0, "g", 1, None))
    columns = ["path", "label", "split", "saliency", "annotated", "group"]
    columns += ["map_weight", "annotation_seconds"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


HANDS = {"ann": (0, 0), "bo": (9, -6), "cy": (0, 0)}


def annotated_folder(
    folder: Path,
    hands: Mapping[str, tuple[int, int]] | None = None,
    images: int = 10,
    size: tuple[int, int] = (100, 80),
) -> Path:
    """Images with a mark, seen by all annotators except the last, who skips every fifth.

    Args:
        folder: New folder.
        hands: Displacement (dx, dy) of each annotator; None = `HANDS`.
        images: Number of images.
        size: Width and height.
    """
    hands = HANDS if hands is None else hands
    rng = np.random.default_rng(0)
    width, height = size
    last = list(hands)[-1] if len(hands) > 1 else ""
    y, x = np.mgrid[:height, :width]
    rows = []
    for number in range(images):
        at = rng.integers(30, (width - 30, height - 30))
        truth = ((x - at[0]) / 10) ** 2 + ((y - at[1]) / 8) ** 2 < 1
        depth = ndimage.distance_transform_edt(truth) - ndimage.distance_transform_edt(~truth)
        maps = {}
        for name, (dx, dy) in hands.items():
            if number % 5 == 4 and name == last:
                continue
            noise = ndimage.gaussian_filter(rng.standard_normal(truth.shape), 3)
            drawn = np.roll(depth + noise / noise.std() > 0, (dy, dx), axis=(0, 1))
            maps[name] = drawn.astype(np.uint8) * 255
            _save(folder / "annotators" / name / f"{number}.png", maps[name])
        _save(
            folder / "images" / f"{number}.png", rng.integers(0, 256, (height, width, 3), np.uint8)
        )
        _save(
            folder / "maps" / f"{number}.png", np.mean(list(maps.values()), axis=0).astype(np.uint8)
        )
        split = ("train", "train", "val", "test")[number % 4]
        rows.append((f"images/{number}.png", "marked", split, f"maps/{number}.png", 1))
    columns = ["path", "label", "split", "saliency", "annotated"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    record = {"annotators": {name: name for name in hands}}
    (folder / "import.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
