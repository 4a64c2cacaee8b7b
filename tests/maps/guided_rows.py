"""Ten rows of a manifest in tests, stores and images of maps for them, and what guides each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.config.run import MapSource, RunConfig
from preceptor.data.loader import MapTargets
from preceptor.maps.sources import build_map_targets
from preceptor.maps.store import MapStore, StoreInfo, write_store

COUNT = 10
SIZES = np.array([[40 + 10 * row, 60] for row in range(COUNT)], np.int32)
IMAGES: Any = SimpleNamespace(sizes=SIZES, side=32)
ROWS = np.array([1, 2, 3, 5, 6, 7, 8, 9])  # manifest rows that are trained on
LABELS = np.array(["a", "b"] * 5)
ANNOTATED = np.isin(np.arange(COUNT), [0, 1, 2, 3, 5])


def manifest(**columns: Any) -> Any:
    """Ten rows; 0 to 4 and 9 have human maps."""
    table = pd.DataFrame(
        {
            "name": [f"d{row % 2}/{row}.png" for row in range(COUNT)],
            "label": LABELS,
            "saliency": [f"/m/{row}.png" if row < 5 or row == 9 else "" for row in range(COUNT)],
            "group": "",
            "map_weight": 1 + 0.1 * np.arange(COUNT),
        }
    )
    return SimpleNamespace(table=table.assign(**columns))


def guides(
    maps: MapSource, annotated: Any = ANNOTATED, table: Any = None, **config: Any
) -> MapTargets | None:
    """What guides the rows that are trained on."""
    run = RunConfig(manifest=Path("m"), backbone="b", maps=maps, **config)
    return build_map_targets(run, table or manifest(), IMAGES, ROWS, annotated)


def must(found: MapTargets | None) -> MapTargets:
    """What was found, which there must be."""
    assert found is not None
    return found


def write_maps(folder: Path, rows: Any, fit: Any = "squash", grid: int = 5, **columns: Any) -> None:
    """Row r's map has the value r + 1 in one cell, r % grid."""
    maps = np.zeros((len(rows), grid, grid), np.float16)
    for position, row in enumerate(rows):
        maps[position, 0, row % grid] = row + 1
    names = np.array([f"d{row % 2}/{row}.png" for row in rows], object)
    zeros = np.zeros(len(rows))
    info = StoreInfo("t", "cam", fit, 50, ("a", "b"), {})
    store = MapStore(info, names, maps, zeros.astype(np.int32), zeros.astype(np.float32))
    write_store(folder, replace(store, **columns))


def owners(found: MapTargets) -> list[int]:
    """Whose store map each row is guided by: −1 = its human map, −2 = not guided."""
    assert found.array is not None
    return [
        -2 if weight == 0 else -1 if index < 0 else round(float(found.array.maps[index].max())) - 1
        for weight, index in zip(found.weight, found.index, strict=True)
    ]


def write_image(path: Path, column: int) -> None:
    """A map with one bright column of eight."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((6, 8), np.uint8)
    values[:, column] = 255
    Image.fromarray(values).save(path)
