"""Summary of a manifest by split."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.images import image_size
from preceptor.data.locations.read import reading_threads
from preceptor.data.manifest import Manifest
from preceptor.runtime.cores import core_count

_COUNTS = ("images", "annotated", "with map", "sources", "groups", "sizes")


def summary_table(manifest: Manifest, sizes: NDArray[np.int32] | None = None) -> pd.DataFrame:
    """Summary of each split: numbers of images, classes, sources and groups, and image sizes.

    Args:
        manifest: Manifest.
        sizes: (n, 2) width and height of its images; None = they are read from the headers.

    Returns:
        One row per split, in order of appearance. Columns: `images`, one for each class,
        `annotated`, `with map`, `sources`, `groups` (numbers of distinct values) and `sizes`
        (smallest to largest by area, "224×224 – 640×480").

    Raises:
        ImageError: The header of an image cannot be read.
    """
    table = manifest.table
    by_row = _read_sizes(manifest) if sizes is None else list(map(tuple, sizes.tolist()))
    all_sizes = pd.Series(by_row, dtype=object)
    rows = {}
    for split, part in table.groupby("split", sort=False):
        labels = part["label"].value_counts()
        row: dict[str, int | str] = {"images": len(part)}
        for label in manifest.classes:
            row[f"class {label}" if label in _COUNTS else label] = int(labels.get(label, 0))
        row["annotated"] = int(part["annotated"].sum())
        row["with map"] = int((part["saliency"] != "").sum())
        for column in ("source", "group"):
            row[f"{column}s"] = part.loc[part[column] != "", column].nunique()
        row["sizes"] = _span(all_sizes[part.index])
        rows[str(split)] = row
    summary = pd.DataFrame.from_dict(rows, orient="index")
    summary.index.name = "split"
    return summary


def _read_sizes(manifest: Manifest) -> list[tuple[int, int]]:
    """Sizes of all images, from their headers."""
    paths = manifest.table["path"].tolist()
    with ThreadPoolExecutor(reading_threads(paths, core_count())) as pool:
        return list(pool.map(image_size, paths))


def _span(sizes: Iterable[tuple[int, int]]) -> str:
    ordered = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    ends = dict.fromkeys((ordered[0], ordered[-1]))
    return " – ".join(f"{width}×{height}" for width, height in ends)
