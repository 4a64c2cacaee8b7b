"""Import of large COCO and Label Studio files: time and memory, beside pycocotools' load.

    python benchmarks/importers.py [--images 100000] [--shapes 10] [--tasks 50000] [--only coco]

COCO: polygons of 12 points on images of 512 × 512, which are hard links. Each part runs
in a process of its own, whose time, processor time and largest memory are printed: `load` is
pycocotools' `COCO(file)`, `parse` is `read_coco(file)`, `read` makes all shapes too, and `whole`
writes the maps and the manifest.
Label Studio: tasks with five rectangles and polygons, read without being held.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 512
LINKS = 50_000  # to one file; ext4 allows 65,000


def make_coco(folder: Path, images: int, shapes: int) -> Path:
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    paths = [folder / "images" / f"{number:07d}.png" for number in range(images)]
    for number, path in enumerate(paths):
        if number % LINKS:
            os.link(paths[number - 1], path)
        else:
            Image.new("L", (SIDE, SIDE), 128).save(path)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    with (folder / "instances.json").open("w") as file:
        file.write('{"images": [')
        for number in range(images):
            one = {"id": number, "file_name": f"{number:07d}.png", "width": SIDE, "height": SIDE}
            file.write(("," if number else "") + json.dumps(one))
        file.write('], "categories": [{"id": 1, "name": "crack"}], "annotations": [')
        for number in range(images):
            center = random.uniform(40, SIDE - 40, (shapes, 1, 2))
            radius = random.uniform(8, 38, (shapes, 12))
            rings = center + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2)
            for index, ring in enumerate(np.round(rings, 2)):
                low, high = ring.min(0), ring.max(0)
                one = {
                    "id": number * shapes + index,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": 100.0,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "segmentation": [ring.reshape(-1).tolist()],
                }
                file.write(("," if number or index else "") + json.dumps(one))
        file.write("]}")
    return folder / "instances.json"


def make_tasks(folder: Path, tasks: int) -> Path:
    random = np.random.default_rng(0)
    size = {"original_width": SIDE, "original_height": SIDE, "image_rotation": 0}
    size |= {"to_name": "image", "from_name": "label"}
    with (folder / "tasks.json").open("w") as file:
        file.write("[")
        for number in range(tasks):
            box = dict(zip(("x", "y", "width", "height"), random.uniform(5, 40, 4), strict=True))
            points = random.uniform(5, 95, (20, 2)).tolist()
            box |= {"rotation": 0, "rectanglelabels": ["crack"]}
            polygon = {"points": points, "polygonlabels": ["crack"]}
            first = {"id": "a", "type": "rectanglelabels", "value": box} | size
            other = {"id": "b", "type": "polygonlabels", "value": polygon} | size
            results = [first, *[other] * 4]
            task = {
                "id": number,
                "data": {"image": f"/data/upload/1/{number:08x}-{number}.png"},
                "annotations": [{"completed_by": 1, "lead_time": 3.5, "result": results}],
            }
            file.write(("," if number else "") + json.dumps(task))
        file.write("]")
    return folder / "tasks.json"


def load(path: Path) -> str:
    from pycocotools.coco import COCO

    return f"{len(COCO(str(path)).anns):,} shapes"


def read(path: Path) -> str:
    from preceptor.data.importers import read_coco

    return f"{sum(len(one.annotations) for one in read_coco(path)):,} shapes"


def parse(path: Path) -> str:
    from preceptor.data.importers import read_coco

    return f"{len(read_coco(path).classes)} class"


def whole(path: Path) -> str:
    from preceptor.data.importers import ImportOptions, read_coco, write_import

    to = path.parent / "out"
    summary = write_import(read_coco(path), path.parent / "images", to, ImportOptions())
    return f"{summary.maps:,} maps"


def stream(path: Path) -> str:
    from preceptor.data.importers import read_labelstudio

    return f"{sum(len(one.annotations) for one in read_labelstudio(path)):,} shapes"


PARTS = {one.__name__: one for one in (load, parse, read, whole, stream)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--shapes", type=int, default=10, help="per image")
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--only", choices=["coco", "labelstudio"])
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        started = time.perf_counter()
        found = PARTS[given.part[0]](Path(given.part[1]))
        spent = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
        print(f"{given.part[0]:>7} {spent:7.1f} s, {cpu:.1f} s of a core, {peak:.2f} GB: {found}")
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "labelstudio":
            path = make_coco(Path(folder), given.images, given.shapes)
            print(
                f"COCO, {given.images:,} images, {path.stat().st_size / 2**20:.0f} MB", flush=True
            )
            for part in ("load", "parse", "read", "whole"):
                subprocess.run([sys.executable, __file__, "--part", part, path], check=True)
        if given.only != "coco":
            path = make_tasks(Path(folder), given.tasks)
            print(f"Label Studio, {given.tasks:,} tasks, {path.stat().st_size / 2**20:.0f} MB")
            subprocess.run([sys.executable, __file__, "--part", "stream", path], check=True)


if __name__ == "__main__":
    main()
