"""Images of a manifest as canvases and maps: from a cache that is filled once, or decoded anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import MAP_SIDE, render
from preceptor.data.images import ImageError, decode_map, image_size, load_image
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import stored_map
from preceptor.data.store import FileContents, Store, examine, positions_among
from preceptor.errors import Problem, ProblemsError, RunFailedError


def contents_of(manifest: Manifest, cache_dir: Path | None = None) -> FileContents:
    """Content hashes of a manifest: those it was read with, or those of its files now."""
    if manifest.contents is not None:
        return manifest.contents
    columns = [manifest.table[name].tolist() for name in ("path", "saliency")]
    hashed = examine(*columns, cache_dir=cache_dir, decode=False)
    if hashed.contents is None:
        wrong = zip(columns, (hashed.wrong_images, hashed.wrong_maps), strict=True)
        reasons = {paths[row]: why for paths, rows in wrong for row, why in rows.items()}
        fix = "restore the file or remove its row"
        problems = [Problem(path, why, fix) for path, why in sorted(reasons.items())]
        raise ProblemsError(str(manifest.source or manifest.root), problems)
    return hashed.contents


@dataclass(frozen=True)
class CachedImages:
    """Canvases and maps by manifest row, from a memory-mapped cache."""

    side: int
    sizes: NDArray[np.int32]  # (n, 2) width and height of the original images
    pixels: NDArray[np.uint8]  # (m, side, side, C)
    positions: NDArray[np.int64]  # (n,) position of the canvas of each row
    maps: NDArray[np.uint8]  # (k, 128, 128)
    map_positions: NDArray[np.int64]  # (n,) position of the map of each row; −1 for none

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) canvases of these rows."""
        return self.pixels[self.positions[rows]]

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) human maps of these rows, zeros for rows without one."""
        positions = self.map_positions[rows]
        maps = np.zeros((len(positions), MAP_SIDE, MAP_SIDE), np.uint8)
        maps[positions >= 0] = self.maps[positions[positions >= 0]]
        return maps


@dataclass(frozen=True)
class DecodedImages:
    """Canvases and maps by manifest row, decoded at every call (`cache: none`)."""

    form: ImageFormat
    sizes: NDArray[np.int32]
    paths: pd.Series
    map_paths: pd.Series  # "" for none

    @property
    def side(self) -> int:
        """Canvas side in pixels."""
        return self.form.side

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, C) canvases of these rows."""
        form = self.form

        def canvas(path: str) -> NDArray[np.uint8]:
            return render(load_image(path, form.channels), form.fit, form.side)

        return np.stack([canvas(path) for path in self.paths.iloc[rows]])

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 128, 128) human maps of these rows, zeros for rows without one."""
        maps = np.zeros((len(rows), MAP_SIDE, MAP_SIDE), np.uint8)
        there = np.flatnonzero(self.map_paths.iloc[rows] != "")
        for at in there.tolist():
            maps[at] = stored_map(decode_map(self.map_paths.iloc[rows[at]]))
        return maps


ImageSource = CachedImages | DecodedImages


class Features(NamedTuple):
    """Features of images by manifest row, from a memory-mapped cache."""

    plain: NDArray[np.float16]  # (m, h, w, K)
    positions: NDArray[np.int64]  # (n,) position of the features of each row; −1 for none
    mirrored: NDArray[np.float16]  # (k, h, w, K) of the images flipped left and right
    mirrored_positions: NDArray[np.int64]

    def of(self, rows: NDArray[np.int64], flips: NDArray[np.bool_] | None) -> NDArray[np.float16]:
        """(B, h, w, K) features of these rows, of the mirror images where `flips`."""
        features = self.plain[self.positions[rows]]
        if flips is not None and flips.any():
            features[flips] = self.mirrored[self.mirrored_positions[rows[flips]]]
        return features


def in_memory(pixels: NDArray[np.uint8]) -> CachedImages:
    """Images (n, side, side, C) that are canvases already, without maps."""
    count, side = pixels.shape[:2]
    rows, sizes = np.arange(count), np.full((count, 2), side, np.int32)
    no_maps = np.zeros((0, MAP_SIDE, MAP_SIDE), np.uint8)
    return CachedImages(side, sizes, pixels, rows, no_maps, np.full(count, -1))


def open_images(
    manifest: Manifest,
    form: ImageFormat,
    cache_dir: Path,
    *,
    cached: bool = True,
    contents: FileContents | None = None,
    workers: int | None = None,
) -> ImageSource:
    """Images of a manifest on square canvases, with or without a cache."""
    images, maps = manifest.table["path"], manifest.table["saliency"]
    if not cached:
        files, sizes = contents or manifest.contents, np.zeros((len(manifest), 2), np.int32)
        sizes = sizes if files is None else files.sizes.copy()
        unknown = np.flatnonzero(~sizes.any(1))
        read = [image_size(path) for path in images.iloc[unknown]]
        sizes[unknown] = np.array(read, np.int32).reshape(-1, 2)
        return DecodedImages(form, sizes, images, maps)
    contents = contents or contents_of(manifest, cache_dir)
    found = _cached(contents, form, cache_dir)
    if found is None:
        paths = images.tolist(), maps.tolist()
        done = examine(*paths, cache_dir=cache_dir, formats=[form], workers=workers)
        for wrong, column in ((done.wrong_images, paths[0]), (done.wrong_maps, paths[1])):
            for row, why in wrong.items():
                raise ImageError(column[row], why)
        found = _cached(contents, form, cache_dir)
    if found is None:
        raise RunFailedError(
            f"image cache {cache_dir}: images were changed while they were read; start again"
        )
    return found


def _cached(contents: FileContents, form: ImageFormat, cache_dir: Path) -> CachedImages | None:
    """Images from their cache; None if any is missing."""
    images, maps = Store.of(cache_dir, form), Store.of(cache_dir, None)
    positions = positions_among(contents.images, images.digests())
    map_positions = positions_among(contents.maps, maps.digests())
    if (positions < 0).any() or (map_positions[contents.maps.any(1)] < 0).any():
        return None
    sizes = images.sizes()[positions] if len(positions) else np.empty((0, 2), np.int32)
    pixels = images.pixels()
    return CachedImages(form.side, sizes, pixels, positions, maps.pixels(), map_positions)
