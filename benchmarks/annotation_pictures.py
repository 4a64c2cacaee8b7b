"""The pictures of docs/annotations.md, of coins photographed for scikit-image's examples.

    python benchmarks/annotation_pictures.py [--to docs/images] [--browser chromium]

Marks are outlines of single coins. They go through the importers as files of COCO and as maps of
three annotators, one of whom marks 7 pixels too far to the right and 5 too high. The page of
`data agreement` is drawn by a browser; without one, its picture is left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from method_pictures import SIDE, Picture, overlay, sheet, tile
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import data

from preceptor.data.annotators import agreement_of, read_annotators
from preceptor.data.images import decode_map
from preceptor.data.importers import ImportOptions, read_coco, read_labelstudio, write_import
from preceptor.data.importers.rasterize import RasterOptions
from preceptor.data.merge_annotators import MERGES
from preceptor.data.outlines import outline
from preceptor.report.agreement_page import write_agreement
from preceptor.report.outline_pictures import stroke

CROP = 96  # side of an image around a coin, in pixels
HANDS = {"ann": (0, 0), "bo": (7, -5), "cy": (0, 0)}
SHAPES: list[tuple[str, RasterOptions]] = [
    ("segmentation", RasterOptions()),
    ("segmentation", RasterOptions("soft", 4.0)),
    ("segmentation", RasterOptions("centre")),
    ("bbox", RasterOptions()),
]
Mask = NDArray[np.bool_]


def coins() -> list[tuple[Picture, Mask]]:
    """Photograph of each coin that is in the light, and its region."""
    photograph = data.coins()
    smooth = ndimage.gaussian_filter(photograph.astype(float), 1.5)
    bright = ndimage.binary_opening(ndimage.binary_fill_holes(smooth > 115), iterations=4)
    labels, count = ndimage.label(bright)
    found = []
    for number in range(1, count + 1):
        region = labels == number
        row, column = (round(one) - CROP // 2 for one in ndimage.center_of_mass(region))
        place = slice(row, row + CROP), slice(column, column + CROP)
        inside = region[place] if min(row, column) >= 0 else region[:0]
        if inside.shape == (CROP, CROP) and 900 < inside.sum() == region.sum() < 3600:
            found.append((np.repeat(photograph[place][..., None], 3, axis=2), inside))
    return found


def drawn(region: Mask, hand: tuple[int, int], random: np.random.Generator) -> Mask:
    """Region with an unsteady border, displaced by (x, y)."""
    depth = ndimage.distance_transform_edt(region) - ndimage.distance_transform_edt(~region)
    noise = ndimage.gaussian_filter(random.standard_normal(region.shape), 4)
    moved: Mask = np.roll(depth + 1.5 * noise / noise.std() > 0, hand[::-1], axis=(0, 1))
    return moved


def ring_of(mask: Mask) -> NDArray[np.float64]:
    return max((region.outer for region in outline(mask, 0.5)), key=len)


def imported(folder: Path, picture: Picture, mask: Mask) -> list[Picture]:
    """The photograph and the maps of one COCO annotation, drawn in several ways."""
    (folder / "images").mkdir(parents=True)
    Image.fromarray(picture).save(folder / "images" / "coin.png")
    ring = ring_of(mask)
    low, high = ring.min(axis=0), ring.max(axis=0)
    geometry: dict[str, Any] = {
        "segmentation": [ring.reshape(-1).tolist()],
        "bbox": [*low.tolist(), *(high - low).tolist()],
    }
    tiles = [tile(picture)]
    for number, (key, raster) in enumerate(SHAPES):
        source = folder / f"{number}.json"
        shape = {"id": 1, "image_id": 1, "category_id": 1, key: geometry[key]}
        content = {
            "images": [{"id": 1, "file_name": "coin.png", "width": CROP, "height": CROP}],
            "annotations": [shape],
            "categories": [{"id": 1, "name": "coin"}],
        }
        source.write_text(json.dumps(content))
        to = folder / f"out{number}"
        write_import(read_coco(source), folder / "images", to, ImportOptions(raster=raster))
        tiles.append(overlay(picture, decode_map(to / "maps" / "coin.png")))
    return tiles


def outlined(picture: Picture, masks: Mapping[str, Mask]) -> Picture:
    """Photograph with the outline of each annotator, in the colors of the page."""
    large = Image.fromarray(tile(picture))
    draw = ImageDraw.Draw(large)
    for number, mask in enumerate(masks.values()):
        points = [tuple(one) for one in (ring_of(mask) * (SIDE / CROP)).tolist()]
        draw.line([*points, points[0]], fill=stroke(number).color, width=2, joint="curve")
    return np.asarray(large)


def annotated(folder: Path, found: list[tuple[Picture, Mask]]) -> dict[str, Mask]:
    """Folder of data import with three annotators; returns the masks of the first image."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    tasks, first = [], {}
    for number, (picture, region) in enumerate(found):
        Image.fromarray(picture).save(folder / "images" / f"coin{number}.png")
        masks = {name: drawn(region, hand, random) for name, hand in HANDS.items()}
        first = first or masks
        size = {"original_width": CROP, "original_height": CROP, "image_rotation": 0}
        annotations = []
        for person, (name, mask) in enumerate(masks.items()):
            points = (ring_of(mask) * 100 / CROP).tolist()
            value = {"points": points, "polygonlabels": ["coin"]}
            result = {"id": name, "type": "polygonlabels", "value": value} | size
            annotations.append({"id": person, "completed_by": {"email": name}, "result": [result]})
        tasks.append({"data": {"image": f"coin{number}.png"}, "annotations": annotations})
    (folder / "tasks.json").write_text(json.dumps(tasks))
    write_import(read_labelstudio(folder / "tasks.json"), folder / "images", folder / "coins")
    return first


def photograph_page(page: Path, to: Path, browser: str) -> None:
    """Picture of the top of the agreement page, with its findings and tables."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        window = started.new_page(viewport={"width": 1140, "height": 765})
        window.goto(page.as_uri())
        window.screenshot(path=to)
        started.close()
    Image.open(to).convert("RGB").quantize(64).save(to, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    parser.add_argument("--browser", default="chromium")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    found = coins()
    print(f"{len(found)} coins")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = sheet([imported(folder / "coco", *found[0])])
        page.quantize(128).save(given.to / "annotations-shapes.png", optimize=True)
        masks = annotated(folder / "people", found)
        maps = np.stack([mask.astype(np.uint8) * 255 for mask in masks.values()])
        row = [outlined(found[0][0], masks)]
        row += [
            overlay(found[0][0], merge(maps).astype(np.float32) / 255) for merge in MERGES.values()
        ]
        sheet([row]).quantize(128).save(given.to / "annotations-merges.png", optimize=True)
        people = read_annotators(folder / "people" / "coins")
        agreement, cell = agreement_of(people)
        for sentence in write_agreement(people, agreement, cell, folder / "agreement"):
            print(sentence)
        if browser := shutil.which(given.browser):
            picture = given.to / "annotations-agreement.png"
            photograph_page(folder / "agreement" / "agreement.html", picture, browser)
        else:
            print(f"no browser {given.browser}: the picture of the page is left out")


if __name__ == "__main__":
    main()
