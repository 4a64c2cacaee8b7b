"""Reading of a part of the files of a table: each is read once, hashed, decoded and written."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from preceptor.data.cache_writers import CacheWriters
from preceptor.data.images import ImageError, decode_map, load_image, read_file
from preceptor.runtime.checksums import DIGEST_BYTES, content_hash


@dataclass(frozen=True, eq=False)
class FilePart:
    """Part of the files of a table.

    Args:
        paths: Locations of k files.
        is_image: (k,) whether a file is used as an image.
        is_map: (k,) whether a file is used as a map.
    """

    paths: list[str]
    is_image: NDArray[np.bool_]
    is_map: NDArray[np.bool_]


@dataclass(eq=False)
class PartRead:
    """What was found of the files of a part.

    Args:
        known: (k,) whether the content of a file was read.
        digest: (k, 16) content hashes.
        size: (k, 2) width and height; 0 for files that were not decoded.
        as_image: (k,) whether a file is a valid image.
        as_map: (k,) whether a file is a valid map.
        wrong_images: Reasons of files that cannot be decoded as images, by position in the part.
        wrong_maps: Reasons of files that cannot be decoded as maps, by position in the part.
    """

    known: NDArray[np.bool_]
    digest: NDArray[np.uint8]
    size: NDArray[np.int32]
    as_image: NDArray[np.bool_]
    as_map: NDArray[np.bool_]
    wrong_images: dict[int, str] = field(default_factory=dict)
    wrong_maps: dict[int, str] = field(default_factory=dict)

    @classmethod
    def nothing(cls, count: int) -> PartRead:
        """Result of which nothing is filled in."""
        known, as_image, as_map = np.zeros((3, count), bool)
        digest = np.zeros((count, DIGEST_BYTES), np.uint8)
        return cls(known, digest, np.zeros((count, 2), np.int32), as_image, as_map)

    def replace(self, at: Sequence[int], other: PartRead) -> None:
        """Replace what was found of the files at these positions by another result."""
        for name in ("known", "digest", "size", "as_image", "as_map"):
            getattr(self, name)[at] = getattr(other, name)
        for mine, theirs in (
            (self.wrong_images, other.wrong_images),
            (self.wrong_maps, other.wrong_maps),
        ):
            for one in at:
                mine.pop(one, None)
            mine |= {at[one]: why for one, why in theirs.items()}


def read_part(
    part: FilePart,
    writers: CacheWriters | None,
    decoding: contextlib.AbstractContextManager[object] | None = None,
) -> PartRead:
    """Read, hash and decode the files of a part, and write what a cache lacks.

    Args:
        part: Files.
        writers: Writers of the cache; None = decode only.
        decoding: Context in which a file is decoded, such as a semaphore.

    Raises:
        OSError: The disk of the cache is full, or cannot be written.
    """
    found = PartRead.nothing(len(part.paths))
    decoding = decoding or contextlib.nullcontext()
    uses = zip(part.paths, part.is_image.tolist(), part.is_map.tolist(), strict=True)
    for at, (path, is_image, is_map) in enumerate(uses):
        try:
            content = read_file(path)
        except ImageError as error:
            found.wrong_images[at] = found.wrong_maps[at] = error.reason
            continue
        digest = content_hash(content)
        found.digest[at] = np.frombuffer(digest, np.uint8)
        found.known[at] = True
        with decoding:
            if is_image:
                try:
                    found.size[at] = _image(path, content, digest, writers)
                    found.as_image[at] = True
                except ImageError as error:
                    found.wrong_images[at] = error.reason
            if is_map:
                try:
                    found.size[at] = _map(path, content, digest, writers)
                    found.as_map[at] = True
                except ImageError as error:
                    found.wrong_maps[at] = error.reason
    return found


def _image(
    path: str, content: bytes, digest: bytes, writers: CacheWriters | None
) -> tuple[int, int]:
    if writers is not None:
        return writers.put_image(path, content, digest)
    return load_image(path, content=content).size


def _map(path: str, content: bytes, digest: bytes, writers: CacheWriters | None) -> tuple[int, int]:
    if writers is not None:
        return writers.put_map(path, content, digest)
    height, width = decode_map(path, content).shape
    return width, height
