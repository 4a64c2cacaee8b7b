"""Images of a manifest as canvases and maps: memory-mapped from a cache, or decoded on the fly.

A cache is shared by all manifests that use its folder; see `shards` for its content, `cache_view`
for the way in which a manifest finds its images, and `decode_pass` for that in which it is filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.settings import Fit, ImageFormat
from preceptor.data.cache_view import open_view
from preceptor.data.canvas_format import MAP_SIDE, CanvasFormat
from preceptor.data.decode_pass import INDEX, DecodePass
from preceptor.data.file_index import FileIndex
from preceptor.data.fingerprints import contents_of
from preceptor.data.geometry import render
from preceptor.data.images import decode_map, image_size, load_image, read_file
from preceptor.data.locations.location import is_plain
from preceptor.data.locations.read import reading_threads
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import stored_map
from preceptor.errors import RunFailedError


class ImageSource(Protocol):
    """Canvases and maps by manifest row, decoded on the fly or read from a cache."""

    @property
    def side(self) -> int:
        """Side of the canvases in pixels."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(n, 2) width and height of the original images."""

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) canvases of these rows."""

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) human maps of these rows, zeros for rows without one."""


@dataclass(frozen=True)
class DecodedImages:
    """An `ImageSource` that decodes at every call (`cache: none`).

    Args:
        side: Canvas side in pixels.
        sizes: (n, 2) width and height of the original images.
        fit: Method that makes images square, see `geometry.fit_box`.
        channels: Number of channels, 3 or 1.
        paths: (n,) locations of the images.
        map_paths: (n,) locations of the human maps; "" for none.
    """

    side: int
    sizes: NDArray[np.int32]
    fit: Fit
    channels: int
    paths: pd.Series
    map_paths: pd.Series

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) canvases of these rows."""
        paths = self.paths.iloc[rows].tolist()
        return np.stack(
            [
                render(load_image(path, self.channels, content), self.fit, self.side)
                for path, content in zip(paths, _read_remote(paths), strict=True)
            ]
        )

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) human maps of these rows, zeros for rows without one."""
        return read_human_maps(self.map_paths.iloc[rows].tolist())


def read_human_maps(paths: Sequence[str]) -> NDArray[np.uint8]:
    """Human maps, decoded from their files.

    Args:
        paths: Paths of the maps; "" = no map.

    Returns:
        (B, 128, 128) maps as in a cache, zeros for "".

    Raises:
        ImageError: A file is missing or no map.
    """
    found = np.zeros((len(paths), MAP_SIDE, MAP_SIDE), np.uint8)
    for position, (path, content) in enumerate(zip(paths, _read_remote(paths), strict=True)):
        if path:
            found[position] = stored_map(decode_map(path, content))
    return found


def _read_remote(paths: Sequence[str]) -> list[bytes | None]:
    """Contents of remote files and members, which are read at once; None for local files."""
    if all(map(is_plain, paths)):
        return [None] * len(paths)
    with ThreadPoolExecutor(reading_threads(paths, 1)) as pool:
        return list(pool.map(lambda path: None if is_plain(path) else read_file(path), paths))


def open_images(
    manifest: Manifest,
    *,
    side: int,
    fit: Fit = "squash",
    channels: int = 3,
    cache_dir: Path | None,
    index: Path | None = None,
    threads: int | None = None,
) -> ImageSource:
    """Images of a manifest on square canvases, with or without a cache.

    Args:
        manifest: Manifest.
        side: Side of the canvases in pixels.
        fit: Method that makes images square, see `geometry.fit_box`.
        channels: Number of channels, 3 or 1.
        cache_dir: Folder of the caches; None = decode on the fly.
        index: Folder of a `FileIndex`, used without a cache: known sizes of unchanged images are
            not read again.
        threads: Number of decoding threads while the cache is filled; None = one per core.

    Raises:
        InputError: An image or a map cannot be decoded, or the disk is too small.
    """
    if cache_dir is None:
        sizes = _sizes(manifest.table["path"].tolist(), index)
        return DecodedImages(
            side,
            sizes,
            fit,
            channels,
            manifest.table["path"],
            manifest.table["saliency"],
        )
    form = ImageFormat(side, fit, channels)
    found = _cached(manifest, form, cache_dir)
    if found is None:
        images, maps = manifest.table["path"].tolist(), manifest.table["saliency"].tolist()
        with DecodePass(cache_dir, [form], threads) as decoding:
            decoding.decode(images, maps).raise_first()
        found = _cached(manifest, form, cache_dir)
    if found is None:
        raise RunFailedError(
            f"image cache {cache_dir}: cannot be read after it was written, or images were changed "
            "meanwhile; start again, remove the folder, or set cache: none"
        )
    return found


def _sizes(paths: list[str], index: Path | None) -> NDArray[np.int32]:
    """(n, 2) width and height of images."""
    files = FileIndex(index).look_up(paths)
    unknown = np.flatnonzero(~files.as_image)
    left = [paths[row] for row in unknown]
    with ThreadPoolExecutor(reading_threads(left, 1)) as pool:
        for row, size in zip(unknown, pool.map(image_size, left), strict=True):
            files.size[row] = size
    return files.size


def _cached(manifest: Manifest, form: ImageFormat, cache_dir: Path) -> ImageSource | None:
    """Images from their cache; None if any is missing."""
    contents = contents_of(manifest, cache_dir / INDEX)
    return open_view(cache_dir, CanvasFormat.of(form), contents)
