"""Folders of `data import` with several annotators whose errors are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

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
