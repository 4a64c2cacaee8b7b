"""Maps of a store over their images, as annotations to be corrected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.exporters.images import ExportedImage
from preceptor.data.exporters.write import without_problems
from preceptor.data.geometry import fit_box
from preceptor.data.images import image_size
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import resample
from preceptor.errors import InputError
from preceptor.maps.store import MapStore, StoreInfo
from preceptor.runtime.progress import Progress

Interpolation = Literal["linear", "area"]
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


def store_images(
    store: MapStore,
    manifest: Manifest,
    *,
    positive: Iterable[str] = (),
    interpolation: Interpolation = "linear",
    progress: Progress | None = None,
) -> Iterator[ExportedImage]:
    """Images of a map store, in the order of the manifest.

    Nothing is marked in images whose map has an error above the tolerance (`MapStore.settled`):
    min-max normalization would make full-strength marks of its noise.

    Args:
        store: Map store, with its errors if it has some.
        manifest: Manifest of its images.
        positive: Classes whose maps are exported, by the class of the map; empty = all.
        interpolation: See `map_over_image`.
        progress: Function called with (done, total).

    Raises:
        InputError: An image of the store is not in the manifest, or a class is unknown.
        ProblemsError: At the end, if images cannot be read; lists all.
    """
    classes = store.info.classes
    wanted = set(positive)
    if unknown := sorted(wanted - set(classes)):
        known = ", ".join(classes)
        raise InputError(
            f"--positive {unknown[0]!r}: the Teacher has no such class; known: {known}"
        )
    place = {str(path): row for row, path in enumerate(store.paths)}
    names, settled = manifest.table["name"], store.settled
    if missing := sorted(set(place) - set(names)):
        raise InputError(
            f"{len(missing):,} images of the map store are not in the manifest ({missing[0]}, …); "
            "name the manifest whose maps were made"
        )

    def read(row: pd.Series) -> ExportedImage:
        number = place[str(row["name"])]
        path = str(row["path"])
        size = image_size(path)
        pixels = None
        of = classes[int(store.classes[number])]
        if settled[number] and (not wanted or of in wanted):
            grid = np.asarray(store.maps[number], np.float32)
            pixels = map_over_image(grid, store.info, size, interpolation)
        return ExportedImage(
            str(row["name"]),
            path,
            size,
            str(row["label"]),
            str(row["split"]),
            str(row["source"]),
            str(row["group"]),
            pixels,
            float(store.scores[number]),
            of,
        )

    table = manifest.table[names.isin(place)]
    yield from without_problems(table, read, str(manifest.source or manifest.root), progress)


def unsettled(store: MapStore, positive: Iterable[str] = ()) -> int:
    """Number of maps that `store_images` leaves out, since their error is above the tolerance."""
    names = np.array(store.info.classes, object)[store.classes]
    wanted = set(positive) or set(store.info.classes)
    return sum(name in wanted for name in names[~store.settled])


def map_over_image(
    grid: NDArray[np.float32],
    info: StoreInfo,
    size: tuple[int, int],
    interpolation: Interpolation = "linear",
) -> NDArray[np.float32]:
    """Map of a store over the whole image, 0 outside the part that the Teacher saw.

    Maps are normalized to [0, 1] by their minimum and maximum, except those of method cells, which
    are probabilities; a constant map becomes 0.

    Args:
        grid: (h, w) map.
        info: Metadata of the store: the part of the image that the grid covers.
        size: Width and height of the image in pixels.
        interpolation: linear (between the centers of cells) or area (constant in each cell).

    Returns:
        (height, width) values from 0 to 1.

    Example:
        >>> info = StoreInfo("teacher", "cam", "crop", 2, ("a", "b"), {})
        >>> map_over_image(np.array([[0, 0], [1, 1]], np.float32), info, (4, 2), "area").tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    """
    width, height = size
    if info.method != "cells":
        low, high = float(grid.min()), float(grid.max())
        grid = (grid - low) / (high - low) if high > low else np.zeros_like(grid)
    if interpolation == "linear":
        canvas = Image.fromarray(grid.astype(np.float32))
        grid = np.asarray(canvas.resize((info.side, info.side), Image.Resampling.BILINEAR))
    box = fit_box(width, height, info.fit, info.side)
    region = torch.tensor([box.as_tuple()], dtype=torch.float64)
    maps = torch.from_numpy(np.array(grid, np.float32))[None]
    found = resample(maps, region, _UNIT, (height, width))[0]
    return found.clamp_(0, 1).numpy()
