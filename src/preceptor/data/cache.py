"""Decoded, resized images and maps as memory-mapped uint8, filled once and shared by all runs.

A cache is a folder named by a hash of its content and settings: `images.npy` (n, side, side, C),
`maps.npy` (m, 128, 128) with the maps on the unit square of their images, `sizes.npy` (n, 2) and
`cache.json`. It is built beside its place and renamed into it, so it is there as a whole or not at
all; a file lock makes the second of two builders wait for the first. A cache that was damaged later
(a file of it is gone or was cut short) is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.config.image_format import Fit
from preceptor.data.fingerprints import fingerprints
from preceptor.data.geometry import render, resample
from preceptor.data.images import decode_image, decode_map, image_size
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, RunFailedError
from preceptor.runtime.progress import track
from preceptor.runtime.replace_file import replacing

try:
    import fcntl
except ImportError:  # Windows: builders do not wait, and the last rename is harmless
    fcntl = None  # type: ignore[assignment]

# Side of the stored maps: four cells of it lie in one of the finest usual feature grid (32 × 32).
MAP_SIDE = 128
# Raised when the decoded pixels of the same file would change.
CACHE_FORMAT = 2
# Bytes that must stay free on the disk after the cache is written.
SPARE_DISK = 256 * 2**20
# Error of a mean of float32 values, relative to the largest: a smaller difference is no mark.
_ROUNDING = 1e-6
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


class ImageSource(Protocol):
    """Canvases and maps by manifest row, decoded on the fly or read from a cache."""

    @property
    def side(self) -> int:
        """Canvas side in pixels."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(n, 2) width and height of the original images."""

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) of these rows."""

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) of these rows, zeros where there is none."""


@dataclass(frozen=True)
class MappedImages:
    """An `ImageSource` over the memory-mapped cache."""

    side: int
    sizes: NDArray[np.int32]
    images: NDArray[np.uint8]
    maps: NDArray[np.uint8]
    map_index: NDArray[np.int64]

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) of these rows."""
        return self.images[rows]

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) of these rows, zeros where there is none."""
        found = np.zeros((len(rows), MAP_SIDE, MAP_SIDE), np.uint8)
        index = self.map_index[rows]
        found[index >= 0] = self.maps[index[index >= 0]]
        return found


@dataclass(frozen=True)
class DecodedImages:
    """An `ImageSource` that decodes at every call (`cache: none`)."""

    side: int
    sizes: NDArray[np.int32]
    fit: Fit
    channels: int
    paths: list[str]
    map_paths: list[str]

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) of these rows."""
        return np.stack(
            [
                render(decode_image(Path(self.paths[row]), self.channels), self.fit, self.side)
                for row in rows
            ]
        )

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) of these rows, zeros where there is none."""
        found = np.zeros((len(rows), MAP_SIDE, MAP_SIDE), np.uint8)
        for position, row in enumerate(rows):
            if self.map_paths[row]:
                found[position] = stored_map(Path(self.map_paths[row]))
        return found


def map_on_unit_square(path: Path) -> NDArray[np.float32]:
    """Read a map onto the 128 × 128 grid of its unit square, its minimum taken off.

    So a bright ground is no mark beside the empty margins of a letterboxed canvas, and a constant
    map is 0 everywhere.

    Args:
        path: The map file.

    Returns:
        float32 of shape (128, 128), from 0 up.

    Raises:
        ImageError: It cannot be decoded.
    """
    values = decode_map(path)
    values = values - values.min()  # before sums are taken: a constant map is then exactly 0
    grid = resample(torch.from_numpy(values)[None], _UNIT, _UNIT, (MAP_SIDE, MAP_SIDE))[0]
    grid -= grid.min()
    if float(grid.max()) <= _ROUNDING * float(values.max()):
        grid.zero_()
    found: NDArray[np.float32] = grid.numpy()
    return found


def stored_map(path: Path) -> NDArray[np.uint8]:
    """A map on its unit square, stretched to the full range of uint8.

    The stretch keeps a tiny mark, or a faint one on a bright ground, from being rounded away;
    guidance normalises the scale anyway.
    """
    grid = map_on_unit_square(path)
    stretched: NDArray[np.float32] = grid * np.float32(255 / max(float(grid.max()), 1e-12))
    return np.rint(stretched).astype(np.uint8)


def open_images(
    manifest: Manifest,
    *,
    side: int,
    fit: Fit = "squash",
    channels: int = 3,
    cache_dir: Path | None,
    threads: int | None = None,
) -> ImageSource:
    """The images of a manifest on square canvases, through the cache or (None) without.

    Args:
        manifest: All rows; every run of a study shares one cache, whatever rows it uses.
        side: Canvas side in pixels.
        fit: See `geometry.fit_box`.
        channels: 3 or 1.
        cache_dir: Where caches live; None decodes on the fly.
        threads: Decoding threads while the cache is filled; None = the machine's cores.

    Raises:
        InputError: An image or a map cannot be decoded, or the disk is too small.
    """
    if cache_dir is None:
        sizes = np.array([image_size(Path(path)) for path in manifest.table["path"]], np.int32)
        return DecodedImages(
            side,
            sizes,
            fit,
            channels,
            list(manifest.table["path"]),
            list(manifest.table["saliency"]),
        )
    hashes = fingerprints(manifest, cache=cache_dir / "fingerprints.parquet")
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{CACHE_FORMAT} {side} {fit} {channels} {MAP_SIDE}".encode())
    for image, saliency in zip(hashes["path"], hashes["saliency"], strict=True):
        digest.update(f"{image} {saliency}\n".encode())
    folder = cache_dir / f"{side}-{fit}-{digest.hexdigest()}"
    shape = (len(manifest), side, side, channels)
    found = _open(folder, shape)
    if found is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _lock(cache_dir / f"{folder.name}.lock"):
            found = _open(folder, shape)
            if found is None:
                _build(folder, manifest, side, fit, channels, threads or os.cpu_count() or 1)
                found = _open(folder, shape)
    if found is None:
        raise RunFailedError(
            f"image cache {folder}: cannot be read after it was written; remove the folder, or set "
            "cache: none"
        )
    return found


def _open(folder: Path, shape: tuple[int, int, int, int]) -> MappedImages | None:
    """A cache that is there as a whole; None where it is missing, or a file of it was cut short."""
    if not (folder / "cache.json").is_file():
        return None
    maps: NDArray[np.uint8] = np.empty((0, MAP_SIDE, MAP_SIDE), np.uint8)
    try:
        sizes, index = np.load(folder / "sizes.npy"), np.load(folder / "map_index.npy")
        images = np.load(folder / "images.npy", mmap_mode="r")
        if (index >= 0).any():
            maps = np.load(folder / "maps.npy", mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    there = images.shape == shape and len(sizes) == len(index) == shape[0]
    return MappedImages(shape[1], sizes, images, maps, index) if there else None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a file; the kernel lets go of it when the holder dies."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    folder: Path, manifest: Manifest, side: int, fit: Fit, channels: int, threads: int
) -> None:
    """Fill a cache in a temporary sibling and rename it into place."""
    # A builder that was killed leaves its folder behind; under the lock it can only be dead, and
    # what it reserved counts as taken until it is gone.
    for dead in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(dead, ignore_errors=True)
    count = len(manifest)
    has_map = (manifest.table["saliency"] != "").to_numpy()
    needed = count * side * side * channels + int(has_map.sum()) * MAP_SIDE**2
    free = shutil.disk_usage(folder.parent).free
    if needed + SPARE_DISK > free:
        raise InputError(
            f"image cache {folder.parent}: needs {needed / 2**20:,.0f} MiB and "
            f"{free / 2**20:,.0f} MiB are free; choose another folder or set cache: none"
        )
    try:
        with replacing(folder) as partial:
            partial.mkdir()
            _fill(partial, manifest, side, fit, channels, threads)
    except OSError as error:
        raise RunFailedError(f"image cache {folder.parent}: {error.strerror or error}") from error


def _fill(
    partial: Path, manifest: Manifest, side: int, fit: Fit, channels: int, threads: int
) -> None:
    """Write the files of a cache into a folder."""
    count = len(manifest)
    has_map = (manifest.table["saliency"] != "").to_numpy()
    map_index = np.where(has_map, np.cumsum(has_map) - 1, -1).astype(np.int64)
    images = _reserve(partial / "images.npy", (count, side, side, channels))
    maps = _reserve(partial / "maps.npy", (int(has_map.sum()), MAP_SIDE, MAP_SIDE))
    sizes = np.zeros((count, 2), np.int32)
    paths, map_paths = list(manifest.table["path"]), list(manifest.table["saliency"])

    def fill(row: int) -> None:
        image = decode_image(Path(paths[row]), channels)
        sizes[row] = image.shape[1], image.shape[0]
        images[row] = render(image, fit, side)
        if map_index[row] >= 0:
            maps[map_index[row]] = stored_map(Path(map_paths[row]))

    _fill_all(fill, count, threads, f"decoding {count:,} images at {side} px")
    for array in (images, maps):
        if isinstance(array, np.memmap):
            array.flush()
    np.save(partial / "sizes.npy", sizes)
    np.save(partial / "map_index.npy", map_index)
    settings = {"side": side, "fit": fit, "channels": channels, "format": CACHE_FORMAT}
    (partial / "cache.json").write_text(json.dumps(settings) + "\n")


def _reserve(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A memory-mapped array whose disk blocks exist: a full disk is an error then, not SIGBUS."""
    if 0 in shape:
        return np.empty(shape, np.uint8)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _fill_all(fill: Callable[[int], None], count: int, threads: int, title: str) -> None:
    """Run `fill` over all rows in threads (decoding and resizing release the GIL)."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in track(pool.map(fill, range(count)), total=count, title=title):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
