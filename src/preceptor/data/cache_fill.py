"""Filling of an image cache by a decoding pass: what is missing, its disk space, its writing."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preceptor.data.cache_writers import CacheTarget, CacheWriters
from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.dead_fills import fill_prefix, remove_dead_fills
from preceptor.data.file_contents import FileContents, places_among
from preceptor.data.file_index import KnownFiles
from preceptor.data.file_table import FileTable
from preceptor.data.resampling import stored_map
from preceptor.data.shards import ShardFolder
from preceptor.errors import InputError

# Bytes that must stay free on the disk after the cache is filled.
SPARE_DISK = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Missing:
    """What a cache lacks of the files of a table.

    Args:
        images: (m,) bool for each format, files whose images are in no shard, of files with known
            contents one for each content.
        maps: (m,) bool, the same of maps.
    """

    images: list[NDArray[np.bool_]]
    maps: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        cache_dir: Path,
        formats: Sequence[CanvasFormat],
        table: FileTable,
        files: KnownFiles,
    ) -> Missing:
        """What a cache lacks of the files of a table; those with unknown contents count as new."""
        images = [
            _absent(ShardFolder.of_images(cache_dir, form), files, table.is_image)
            for form in formats
        ]
        return cls(images, _absent(ShardFolder.of_maps(cache_dir), files, table.is_map))

    @property
    def files(self) -> NDArray[np.bool_]:
        """(m,) whether anything of a file is missing."""
        found: NDArray[np.bool_] = np.any([*self.images, self.maps], axis=0)
        return found


def bytes_missing(cache_dir: Path, formats: Sequence[CanvasFormat], contents: FileContents) -> int:
    """Disk space that a cache needs for a manifest, in addition to what it has.

    Args:
        cache_dir: Folder of the cache.
        formats: Formats of the canvases.
        contents: Content hashes of the manifest.
    """
    parts = [(ShardFolder.of_images(cache_dir, form), contents.images) for form in formats]
    parts.append((ShardFolder.of_maps(cache_dir), contents.maps[contents.maps.any(1)]))
    return sum(of.item_bytes * int(_new(of, digests).sum()) for of, digests in parts)


class CacheFill:
    """Filling of a cache: the check of its disk space, the hidden folder of its unfinished shards,
    and the writers into them: `writers` of this process, and the `target` of others.

    Args:
        cache_dir: Folder of the cache.
        key: Key of the table.
        formats: Formats of the canvases.
        missing: What the cache lacks.
        locked: Whether this process has the lock of the table.

    Raises:
        InputError: The disk is too small.
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        cache_dir: Path,
        key: str,
        formats: Sequence[CanvasFormat],
        missing: Missing,
        *,
        locked: bool,
    ) -> None:
        remove_dead_fills(cache_dir, key, locked=locked)  # before the free space is measured
        hidden = cache_dir / f"{fill_prefix(key)}{uuid.uuid4().hex}.tmp"
        self.target = CacheTarget(cache_dir, hidden, tuple(formats))
        for of in self.target.folders:
            of.remove_damaged()
        counts = [int(which.sum()) for which in (*missing.images, missing.maps)]
        sizes = [of.item_bytes for of in self.target.folders]
        needed = sum(size * count for size, count in zip(sizes, counts, strict=True))
        free = shutil.disk_usage(cache_dir).free
        if needed + SPARE_DISK > free:
            raise InputError(
                f"image cache {cache_dir}: needs {(needed + SPARE_DISK) / 2**20:,.0f} MiB, with a "
                f"reserve, and {free / 2**20:,.0f} MiB are free; choose another folder or set "
                "cache: none"
            )
        hidden.mkdir()
        self.writers = CacheWriters(self.target, counts, stored_map)

    def finish(self) -> None:
        """Publish the shards that are not full.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        self.writers.finish()

    def close(self) -> None:
        """Remove what was not published."""
        shutil.rmtree(self.target.hidden, ignore_errors=True)


def _absent(of: ShardFolder, files: KnownFiles, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(m,) files among `which` that are in no shard, one for each known content."""
    known = np.flatnonzero(which & files.known)
    absent = which & ~files.known
    absent[known[_new(of, files.digest[known])]] = True
    return absent


def _new(of: ShardFolder, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) whether a content hash is in no shard, and not among those before it."""
    new = places_among(digests, of.read().digests) < 0
    at = np.flatnonzero(new)
    new[at] = places_among(digests[at], digests[at]) == np.arange(len(at))
    return new
