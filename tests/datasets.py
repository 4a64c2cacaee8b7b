"""Small real data sets on disk: PNG images, PNG maps and a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.geometry import MAP_SIDE

# A study of tiny forged photographs, two draws of them; each test file adds what it is about.
FORGED_STUDY: dict[str, Any] = {
    "positive": "forged",
    "annotated": 0.5,
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "seeds": [0, 1],
    "teacher_alphas": [0.1],
}

# A study of `squares`; each test file adds what it is about.
SQUARES_STUDY: dict[str, Any] = {
    "positive": "marked",
    "primary": "test-unseen",
    "annotated": 0.5,
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "alphas": [0.5],
    "data_driven": False,
}

# A run on `squares`; each test file adds the manifest and what it is about.
SQUARES_RUN: dict[str, Any] = {
    "backbone": "test_byobnet",
    "backbone_args": {"output_stride": 8},
    "positive": "marked",
}
SHORT = {"input_size": 32, "epochs": 1, "batch_size": 8, "lr": 0.01, "schedule": "constant"}
"""A training of one epoch."""

SPLITS = {"train": 24, "val": 12, "test": 12, "test-unseen": 12}


def squares(
    folder: Path,
    *,
    splits: dict[str, int] | None = None,
    classes: tuple[str, ...] = ("plain", "marked"),
    size: tuple[int, int] = (32, 32),
    seed: int = 0,
) -> Path:
    """Noise images; each class but the first has a square of its own color, which is the map."""
    generator = np.random.default_rng(seed)
    width, height = size
    (folder / "images").mkdir(parents=True)
    (folder / "maps").mkdir()
    rows = []
    for split, count in (splits or SPLITS).items():
        for number in range(count):
            index = number % len(classes)
            pixels = generator.integers(0, 180, (height, width, 3)).astype(np.uint8)
            name, saliency = f"images/{split}-{number}.png", ""
            if index:
                side = min(width, height) // 2
                top = int(generator.integers(0, height - side + 1))
                left = int(generator.integers(0, width - side + 1))
                pixels[top : top + side, left : left + side, index % 3] += 20
                mark = np.zeros((height, width), np.uint8)
                mark[top : top + side, left : left + side] = 255
                saliency = f"maps/{split}-{number}.png"
                Image.fromarray(mark).save(folder / saliency)
            Image.fromarray(pixels).save(folder / name)
            source = "plain" if not index else f"kind {number % 4 // 2}"
            rows.append((name, classes[index], split, saliency, 1, source, f"{split}-{number}"))
    columns = ["path", "label", "split", "saliency", "annotated", "source", "group"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@dataclass
class Noise:
    """An `ImageSource` of random canvases in memory."""

    count: int
    side: int = 16
    channels: int = 3

    def __post_init__(self) -> None:
        generator = np.random.default_rng(0)
        shape = (self.count, self.side, self.side, self.channels)
        self.pixels = generator.integers(0, 256, shape).astype(np.uint8)
        self.sizes = np.full((self.count, 2), self.side, np.int32)

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[rows]

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        maps = np.zeros((len(rows), MAP_SIDE, MAP_SIDE), np.uint8)
        for position, row in enumerate(rows):
            maps[position, int(row) % MAP_SIDE] = 200
        return maps
