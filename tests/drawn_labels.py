"""Images whose labels are drawn from a model's own probabilities: its calibration is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import preceptor

SPLITS = {"train": 60, "val": 240, "test": 60}


def drawn_labels(
    folder: Path, model: Path, temperature: float, splits: dict[str, int] | None = None
) -> Path:
    """Manifest of noise images, in which P(positive) = σ(logit ÷ temperature)."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    paths, names = [], []
    for split, count in (splits or SPLITS).items():
        for number in range(count):
            scale = generator.random(3)
            pixels = generator.integers(0, 256, (32, 48, 3)) * scale
            paths.append(folder / f"{split}-{number}.png")
            names.append(split)
            Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    predictor = preceptor.load(model, device="cpu", batch_size=64)
    shares = np.asarray(predictor(paths, maps=False).probabilities, np.float64)
    shares = shares ** (1 / temperature)
    bounds = (shares / shares.sum(1, keepdims=True)).cumsum(1)
    drawn = (generator.random((len(paths), 1)) > bounds).sum(1)
    labels = [predictor.info.classes[min(index, shares.shape[1] - 1)] for index in drawn]
    table = pd.DataFrame({"path": [path.name for path in paths], "label": labels, "split": names})
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"
