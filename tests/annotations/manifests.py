"""Manifests with maps of awkward shapes and images of awkward names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from tests.annotations.trees import save_image

NAMES = ("a/one.png", "b/one.png", "Zwölf Äpfel.png", "50%25 off.png", "a#b.png", "plain.png")


def shapes(seed: int, width: int, height: int) -> np.ndarray:
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
            map_ = shapes(number, width, height).astype(np.uint8) * 255
            if gray:
                map_ = np.rint(ndimage.gaussian_filter(map_.astype(float), 2)).astype(np.uint8)
            saliency = f"maps/{number}.png"
            (folder / "maps").mkdir(exist_ok=True)
            Image.fromarray(map_).save(folder / saliency)
        label = "clean" if name == NAMES[-1] else ("crack", "rust & more")[number % 2]
        rows.append(
            (f"images/{name}", label, ("train", "val")[number % 2], saliency, 1, f"g{number}")
        )
    save_image(folder / "images" / "unseen.png")
    rows.append(("images/unseen.png", "clean", "train", "", 0, "g"))
    columns = ["path", "label", "split", "saliency", "annotated", "group"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"
