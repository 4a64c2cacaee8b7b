"""Image caches on disk: names, opening, writing and publishing.

A cache is a folder named by a hash of its content and settings: `images.npy` (n, side, side, C),
`maps.npy` (m, 128, 128) with the maps on the unit square of their images, `sizes.npy` (n, 2) and
`cache.json`. It is written to a hidden folder and then renamed, so that it is either complete or
absent. A cache that was damaged later (a file is missing or truncated) is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.config.image_format import Fit, ImageFormat
from preceptor.data.dead_fills import remove_dead_renames
from preceptor.data.geometry import render
from preceptor.data.map_geometry import resample
from preceptor.runtime.file_lock import locked
from preceptor.runtime.replace_file import flush_to_disk, replacing

# Side of the stored maps: four cells per cell of the finest usual feature grid (32 × 32).
MAP_SIDE = 128
# Increased if the decoded pixels of the same file change.
CACHE_FORMAT = 2
# Error of a mean of float32 values, relative to the largest: smaller differences are rounding.
_ROUNDING = 1e-6
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


@dataclass(frozen=True)
class CanvasFormat:
    """Format of the images of a cache.

    Args:
        side: Side of the square canvases in pixels.
        fit: Method that makes images square, see `geometry.fit_box`.
        channels: Number of channels, 3 or 1.
    """

    side: int
    fit: Fit = "squash"
    channels: int = 3

    @classmethod
    def of(cls, form: ImageFormat) -> CanvasFormat:
        """Canvas format for a model's image format."""
        return cls(form.side, form.fit, form.channels)

    def name(self, contents: str) -> str:
        """Name of the cache folder of this format.

        Args:
            contents: Hash of the contents of images and maps, see `FileContents`.
        """
        settings = f"{CACHE_FORMAT} {self.side} {self.fit} {self.channels} {MAP_SIDE} {contents}"
        digest = hashlib.blake2b(settings.encode(), digest_size=12)
        return f"{self.side}-{self.fit}-{digest.hexdigest()}"

    def bytes_needed(self, images: int, maps: int) -> int:
        """Disk space of a cache."""
        return images * self.side**2 * self.channels + maps * MAP_SIDE**2


@dataclass(frozen=True)
class MappedImages:
    """`ImageSource` of a memory-mapped cache.

    Args:
        side: Canvas side in pixels.
        sizes: (n, 2) width and height of the original images.
        images: (n, side, side, C) canvases.
        maps: (m, 128, 128) maps.
        map_index: (n,) position of an image's map, −1 for none.
    """

    side: int
    sizes: NDArray[np.int32]
    images: NDArray[np.uint8]
    maps: NDArray[np.uint8]
    map_index: NDArray[np.int64]

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) canvases of these rows."""
        return self.images[rows]

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) human maps of these rows, zeros for rows without one."""
        found = np.zeros((len(rows), MAP_SIDE, MAP_SIDE), np.uint8)
        index = self.map_index[rows]
        found[index >= 0] = self.maps[index[index >= 0]]
        return found


def open_cache(folder: Path, form: CanvasFormat, count: int) -> MappedImages | None:
    """Open a cache; returns None if it is missing or one of its files is truncated.

    Args:
        folder: Folder of the cache.
        form: Format of the canvases.
        count: Number of images.
    """
    if not (folder / "cache.json").is_file():
        return None
    maps: NDArray[np.uint8] = np.empty((0, MAP_SIDE, MAP_SIDE), np.uint8)
    try:
        sizes = np.load(folder / "sizes.npy", mmap_mode="r")
        index = np.load(folder / "map_index.npy", mmap_mode="r")
        images = np.load(folder / "images.npy", mmap_mode="r")
        if (index >= 0).any():
            maps = np.load(folder / "maps.npy", mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    shape = (count, form.side, form.side, form.channels)
    there = images.shape == shape and len(sizes) == len(index) == count
    return MappedImages(form.side, sizes, images, maps, index) if there else None


class CacheWriter:
    """Writer of a cache, in a hidden folder until it is published.

    Args:
        parent: Folder of the caches.
        prefix: Prefix of the name of the hidden folder.
        form: Format of the canvases.
        has_map: (n,) bool, which images have a map.
    """

    def __init__(
        self, parent: Path, prefix: str, form: CanvasFormat, has_map: NDArray[np.bool_]
    ) -> None:
        self.form = form
        self._parent, self._folder = parent, parent / f"{prefix}{uuid.uuid4().hex}.tmp"
        self._folder.mkdir()
        count = len(has_map)
        self._map_index = np.where(has_map, np.cumsum(has_map) - 1, -1).astype(np.int64)
        self._sizes = np.zeros((count, 2), np.int32)
        shape = (count, form.side, form.side, form.channels)
        self._images = _reserve(self._folder / "images.npy", shape)
        maps = (int(has_map.sum()), MAP_SIDE, MAP_SIDE)
        self._maps = _reserve(self._folder / "maps.npy", maps)

    def put_image(self, rows: NDArray[np.int64], image: NDArray[np.uint8]) -> None:
        """Write the canvas of a decoded image, (H, W, C), at its rows."""
        self._sizes[rows] = image.shape[1], image.shape[0]
        self._images[rows] = render(image, self.form.fit, self.form.side)

    def put_map(self, rows: NDArray[np.int64], saliency: NDArray[np.uint8]) -> None:
        """Write a map from `stored_map` at its rows."""
        self._maps[self._map_index[rows]] = saliency

    def publish(self, name: str) -> None:
        """Rename the cache to its name, unless a complete one exists."""
        folder = self._parent / name
        with locked(self._parent / "publish.lock"):
            remove_dead_renames(self._parent)
            if open_cache(folder, self.form, len(self._sizes)) is not None:
                return
            for array in (self._images, self._maps):
                if isinstance(array, np.memmap):
                    array.flush()
            np.save(self._folder / "sizes.npy", self._sizes)
            np.save(self._folder / "map_index.npy", self._map_index)
            form = self.form
            settings = {"side": form.side, "fit": form.fit, "channels": form.channels}
            text = json.dumps(settings | {"format": CACHE_FORMAT}) + "\n"
            (self._folder / "cache.json").write_text(text)
            # This takes long: a process that is killed now leaves what the next pass removes.
            flush_to_disk(self._folder)
            with replacing(folder, flush=False) as partial:
                self._folder.rename(partial)

    def close(self) -> None:
        """Remove the hidden folder of a cache that was not published."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _reserve(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Memory-mapped array with allocated disk blocks, so that a full disk gives no SIGBUS later."""
    if 0 in shape:
        return np.empty(shape, np.uint8)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def on_unit_square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decoded map on the 128 × 128 grid of its unit square, minus its minimum.

    Therefore a bright background does not stand out against the margins of a letterboxed canvas,
    and a constant map is 0 everywhere.

    Args:
        values: float32 of shape (H, W), see `decode_map`.

    Returns:
        float32 of shape (128, 128), from 0 up.
    """
    values = values - values.min()  # before sums are taken: a constant map is then exactly 0
    grid = resample(torch.from_numpy(values)[None], _UNIT, _UNIT, (MAP_SIDE, MAP_SIDE))[0]
    grid -= grid.min()
    if float(grid.max()) <= _ROUNDING * float(values.max()):
        grid.zero_()
    found: NDArray[np.float32] = grid.numpy()
    return found


def stored_map(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Decoded map on its unit square, scaled to the full range of uint8.

    The scaling prevents that small or faint marks are lost by rounding; guidance normalizes maps in
    any case.
    """
    grid = on_unit_square(values)
    stretched: NDArray[np.float32] = grid * np.float32(255 / max(float(grid.max()), 1e-12))
    return np.rint(stretched).astype(np.uint8)
