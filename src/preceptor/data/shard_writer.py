"""Writer of the shards of a folder, used by several threads."""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preceptor.data.shards import DIGESTS, PIXELS, SIZES, ShardFolder
from preceptor.runtime.checksums import DIGEST_BYTES
from preceptor.runtime.replace_file import flush_to_disk


class ShardWriter:
    """Writer of arrays that are in no shard yet; a shard is published as soon as it is full.

    Args:
        target: Folder of the shards.
        hidden: Existing folder for shards that are not full, on the same file system.
        count: Number of arrays that are expected at most, for which disk blocks are allocated.
    """

    def __init__(self, target: ShardFolder, hidden: Path, count: int) -> None:
        self._target, self._hidden, self._left = target, hidden, count
        # Hashes as text of a fixed length, which numpy sorts and searches.
        self._there = np.sort(target.read().digests.view(f"S{DIGEST_BYTES}").ravel())
        self._written: set[bytes] = set()
        self._shard: _UnfinishedShard | None = None
        self._lock = threading.Lock()

    def wants(self, digest: bytes) -> bool:
        """Whether no shard has the array of this content hash."""
        if digest in self._written:
            return False
        if not len(self._there):
            return True
        key = np.array(digest, self._there.dtype)
        place = int(np.searchsorted(self._there, key))
        return place == len(self._there) or bool(self._there[place] != key)

    def put(self, digest: bytes, pixels: NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Write an array, unless another thread has written that of the same content.

        Args:
            digest: Content hash of the file.
            pixels: Array in the shape of the folder.
            size: Width and height of the decoded file.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        full = None
        with self._lock:
            if digest in self._written:
                return
            if self._shard is None:
                count = max(1, min(self._target.most, self._left))
                self._shard = _UnfinishedShard.create(self._target, self._hidden, count)
            try:
                self._shard.write(digest, pixels, size)
            except OSError:
                self._shard.close()
                self._shard = None
                raise
            self._written.add(digest)
            self._left -= 1
            if len(self._shard.digests) == self._shard.room:
                full, self._shard = self._shard, None
        if full is not None:  # other threads go on while it is flushed to the disk
            full.publish(self._target.folder)

    def finish(self) -> None:
        """Publish the shard that is not full.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        with self._lock:
            if self._shard is not None:
                shard, self._shard = self._shard, None
                shard.publish(self._target.folder)


@dataclass
class _UnfinishedShard:
    """Shard in a hidden folder.

    Args:
        of: Folder of the shards.
        folder: Its own folder.
        handle: Handle of its file of arrays.
        room: Number of arrays that fit.
    """

    of: ShardFolder
    folder: Path
    handle: int
    room: int
    digests: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def create(cls, of: ShardFolder, hidden: Path, room: int) -> _UnfinishedShard:
        """Shard with allocated disk blocks, so that a full disk is noticed before the decoding."""
        folder = hidden / uuid.uuid4().hex
        folder.mkdir()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        handle = os.open(folder / PIXELS, flags, 0o666)
        found = cls(of, folder, handle, room)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, of.pixel_bytes(room))
            _write(handle, of.header(room))
        except OSError:
            found.close()
            raise
        return found

    def write(self, digest: bytes, pixels: NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Append an array."""
        assert pixels.shape == self.of.shape
        _write(self.handle, np.ascontiguousarray(pixels).data.cast("B"))
        self.digests.append(digest)
        self.sizes.append(size)

    def publish(self, target: Path) -> None:
        """Rename the shard to its final place, once its content is on the disk."""
        count = len(self.digests)
        try:
            os.lseek(self.handle, 0, os.SEEK_SET)
            _write(self.handle, self.of.header(count))
            os.ftruncate(self.handle, self.of.pixel_bytes(count))
        finally:
            self.close()
        digests = np.frombuffer(b"".join(self.digests), np.uint8).reshape(-1, DIGEST_BYTES)
        np.save(self.folder / DIGESTS, digests)
        np.save(self.folder / SIZES, np.array(self.sizes, np.int32))
        flush_to_disk(self.folder)
        target.mkdir(parents=True, exist_ok=True)
        self.folder.rename(target / self.folder.name)  # a new name: nothing is replaced

    def close(self) -> None:
        """Close its file."""
        os.close(self.handle)


def _write(handle: int, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]
