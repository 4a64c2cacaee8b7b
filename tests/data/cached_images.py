"""Image files of a small manifest, and what tests look at in an image cache that has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.data.manifest import Manifest
from preceptor.data.shards import SHARDS

SIZES = [(40, 30), (30, 40), (64, 20), (25, 25), (33, 47)]
ROWS = np.array([3, 1, 4, 1, 0, 2])


def make(folder: Path) -> Manifest:
    """Five images of different sizes and modes, one turned by EXIF, two with maps."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    rows = []
    for index, (width, height) in enumerate(SIZES):
        pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).convert("L" if index == 3 else "RGB")
        exif = Image.Exif()
        if index == 2:
            exif[0x0112] = 6
        image.save(folder / f"{index}.png", exif=exif)
        saliency = ""
        if index in (1, 4):
            saliency = f"map{index}.png"
            Image.fromarray(pixels[..., 0]).save(folder / saliency)
        rows.append((f"{index}.png", "ab"[index % 2], "train", saliency))
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "saliency"])
    return Manifest.from_frame(frame, folder, need=["train"])


def make_again(folder: Path) -> Manifest:
    """The manifest of images that are there already."""
    rows = [
        (f"{index}.png", "ab"[index % 2], "train", f"map{index}.png" if index in (1, 4) else "")
        for index in range(len(SIZES))
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "saliency"])
    return Manifest.from_frame(frame, folder, need=["train"])


def shards_of(caches: Path) -> list[Path]:
    """Shards, by format."""
    return sorted((caches / SHARDS).glob("*/*"))


def images_in(shard: Path) -> int:
    """Number of arrays of a shard, as numpy reads it."""
    count = len(np.load(shard / "images.npy", mmap_mode="r"))
    assert len(np.load(shard / "sizes.npy")) == len(np.load(shard / "digests.npy")) == count
    return count


def hidden(caches: Path) -> list[Path]:
    return [one for one in caches.rglob(".*") if one.is_dir()]


def cut(file: Path, left: float | None) -> None:
    if left is None:
        file.unlink()
    else:
        os.truncate(file, left if isinstance(left, int) else int(left * file.stat().st_size))
