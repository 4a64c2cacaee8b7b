"""Writers of the images and maps of a cache, by one thread or process or by several threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.geometry import render
from preceptor.data.images import decode_map, load_image
from preceptor.data.shard_writer import ShardWriter
from preceptor.data.shards import ShardFolder

StoredMap = Callable[[NDArray[np.float32]], NDArray[np.uint8]]


@dataclass(frozen=True)
class CacheTarget:
    """Place where images and maps are written.

    Args:
        cache_dir: Folder of the cache.
        hidden: Existing folder for shards that are not full, on the same file system.
        formats: Formats of the canvases.
    """

    cache_dir: Path
    hidden: Path
    formats: tuple[CanvasFormat, ...]

    @property
    def folders(self) -> list[ShardFolder]:
        """Folders of the shards: one for each format, and that of the maps."""
        images = [ShardFolder.of_images(self.cache_dir, form) for form in self.formats]
        return [*images, ShardFolder.of_maps(self.cache_dir)]


class CacheWriters:
    """Writers of the canvases of all formats and of the maps that a cache lacks.

    Args:
        target: Place where they are written.
        counts: Numbers of images of each format, and of maps, that are expected at most.
        stored: Function that makes the stored map of a decoded one (`stored_map`, which needs
            torch); None = no maps are written.
    """

    def __init__(
        self, target: CacheTarget, counts: Sequence[int], stored: StoredMap | None
    ) -> None:
        self._stored = stored
        writers = [
            ShardWriter(of, target.hidden, count)
            for of, count in zip(target.folders, counts, strict=True)
        ]
        self._images = list(zip(target.formats, writers[:-1], strict=True))
        self._maps = writers[-1]

    def put_image(self, path: str, content: bytes, digest: bytes) -> tuple[int, int]:
        """Decode an image and write the canvases that are missing; returns width and height.

        Raises:
            ImageError: It cannot be decoded.
            OSError: The disk is full, or cannot be written.
        """
        wanting = [(form, writer) for form, writer in self._images if writer.wants(digest)]
        for channels in dict.fromkeys(form.channels for form, _ in wanting) or (3,):
            image = load_image(path, channels, content)
            for form, writer in wanting:
                if form.channels == channels:
                    writer.put(digest, render(image, form.fit, form.side), image.size)
        return image.size

    def put_map(self, path: str, content: bytes, digest: bytes) -> tuple[int, int]:
        """Decode a map and write it if it is missing; returns width and height.

        Raises:
            ImageError: It cannot be decoded.
            OSError: The disk is full, or cannot be written.
        """
        values = decode_map(path, content)
        size = values.shape[1], values.shape[0]
        if self._maps.wants(digest):
            assert self._stored is not None
            self._maps.put(digest, self._stored(values), size)
        return size

    def finish(self) -> None:
        """Publish the shards that are not full.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        with contextlib.ExitStack() as every:  # also if one of them fails
            for writer in (*(writer for _, writer in self._images), self._maps):
                every.callback(writer.finish)
