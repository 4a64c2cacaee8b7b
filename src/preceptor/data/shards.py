"""Shards of an image cache: immutable folders with arrays that are found by their content hash.

Each shard has `images.npy` (n, …) uint8, of at most about 64 MiB, `sizes.npy` (n, 2) with width and
height of the decoded files, and `digests.npy` (n, 16) with their content hashes. It is written to a
hidden folder and appears by renaming. All manifests, studies and processes that use the folder
share its shards. One of which a file is missing or of another size counts as absent.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preceptor.data.canvas_format import MAP_FORMAT, MAP_SIDE, CanvasFormat
from preceptor.errors import RunFailedError
from preceptor.runtime.checksums import DIGEST_BYTES

SHARDS = "shards"
"""Folder of a cache folder with one folder of shards for each format."""
PIXELS, SIZES, DIGESTS = "images.npy", "sizes.npy", "digests.npy"
"""Files of a shard."""
# Few enough files for a million images, and little that is lost if a process is killed.
_SHARD_BYTES = 64 * 2**20
_HEADER_BYTES = 128
_DAMAGED = (ValueError, EOFError)  # errors of numpy


@dataclass(frozen=True, eq=False)
class Shards:
    """Shards of a folder at one moment.

    Args:
        names: Names of the k shards.
        counts: (k,) numbers of their arrays.
        digests: (n, 16) content hashes of all of their arrays, by shard and position.
    """

    names: list[str]
    counts: NDArray[np.int64]
    digests: NDArray[np.uint8]


@dataclass(frozen=True)
class ShardFolder:
    """Folder of shards of one format.

    Args:
        folder: Folder; created by the first shard.
        shape: Shape of an array.
    """

    folder: Path
    shape: tuple[int, ...]

    @classmethod
    def of_images(cls, cache_dir: Path, form: CanvasFormat) -> ShardFolder:
        """Shards of the canvases of a format in a cache folder."""
        return cls(cache_dir / SHARDS / form.name, form.shape)

    @classmethod
    def of_maps(cls, cache_dir: Path) -> ShardFolder:
        """Shards of the human maps in a cache folder."""
        name = f"maps-{MAP_SIDE}-v{MAP_FORMAT}"
        return cls(cache_dir / SHARDS / name, (MAP_SIDE, MAP_SIDE))

    @property
    def item_bytes(self) -> int:
        """Disk space of an array."""
        return math.prod(self.shape)

    @property
    def most(self) -> int:
        """Largest number of arrays in a shard."""
        return max(1, _SHARD_BYTES // self.item_bytes)

    def pixel_bytes(self, count: int) -> int:
        """Size of the file with the arrays of a shard."""
        return _HEADER_BYTES + count * self.item_bytes

    def header(self, count: int) -> bytes:
        """Begin of the file with the arrays of a shard, of one length for all numbers."""
        about = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        text = repr(about).encode().ljust(_HEADER_BYTES - 11) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text

    def read(self) -> Shards:
        """Shards that are whole."""
        names, digests = [], [np.empty((0, DIGEST_BYTES), np.uint8)]
        for name in self._names():
            with contextlib.suppress(OSError, *_DAMAGED):
                digests.append(self._digests(name))
                names.append(name)
        counts = np.array([len(known) for known in digests[1:]], np.int64)
        return Shards(names, counts, np.concatenate(digests))

    def is_whole(self, name: str, count: int) -> bool:
        """Whether a shard has as many arrays."""
        try:
            return (self.folder / name / PIXELS).stat().st_size == self.pixel_bytes(count)
        except OSError:
            return False

    def remove_damaged(self) -> None:
        """Remove the shards that are not whole, for their disk space."""
        for name in self._names():
            try:
                self._digests(name)
            except (FileNotFoundError, *_DAMAGED):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            except OSError:  # it may be whole
                continue

    def sizes(self, name: str) -> NDArray[np.int32]:
        """(n, 2) width and height of the decoded files of a shard."""
        found: NDArray[np.int32] = np.load(self.folder / name / SIZES)
        return found

    def pixels(self, name: str, count: int) -> NDArray[np.uint8]:
        """(n, …) memory-mapped arrays of a shard.

        Raises:
            RunFailedError: The shard was removed or damaged since it was looked for.
        """
        file = self.folder / name / PIXELS
        with contextlib.suppress(OSError, pa.ArrowException):
            content = mapped_file(file)
            header = self.header(count)
            if content.size == self.pixel_bytes(count) and content[: len(header)] == header:
                array = np.frombuffer(content, np.uint8, offset=len(header))
                return array.reshape(count, *self.shape)
        raise RunFailedError(f"{file}: damaged or removed; start again")

    def _names(self) -> list[str]:
        try:
            with os.scandir(self.folder) as entries:
                return sorted(one.name for one in entries if not one.name.startswith("."))
        except OSError:
            return []

    def _digests(self, name: str) -> NDArray[np.uint8]:
        """Content hashes of a shard.

        Raises:
            FileNotFoundError, ValueError, EOFError: It is not whole.
            OSError: It cannot be read.
        """
        folder = self.folder / name
        digests: NDArray[np.uint8] = np.load(folder / DIGESTS)
        sizes, count = np.load(folder / SIZES), len(digests)
        size = (folder / PIXELS).stat().st_size
        if digests.shape != (count, DIGEST_BYTES) or sizes.shape != (count, 2):
            raise ValueError("shapes differ")
        if size != self.pixel_bytes(count):
            raise ValueError(f"{size} bytes")
        return digests


def mapped_file(file: Path) -> pa.Buffer:
    """Memory-mapped content of a file.

    Unlike numpy's, these maps keep no file open: a process may open 1,024 of them.

    Raises:
        MemoryError: There is no room for it in the memory of this process.
        OSError, pyarrow.ArrowException: It cannot be read, or is empty.
    """
    try:
        with pa.memory_map(str(file)) as opened:
            return opened.read_buffer()
    except OSError as error:
        if error.errno is None and file.stat().st_size:  # opened, and not mapped
            raise MemoryError(f"{file}: it cannot be memory-mapped") from error
        raise


def mapped_array(file: Path) -> NDArray[Any]:
    """Memory-mapped array of a file that `numpy.save` has written.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: The file cannot be read, or is damaged.
    """
    content = mapped_file(file)
    stream = io.BytesIO(content[:_HEADER_BYTES])
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{file}: another version of the format")
    shape, _, kind = np.lib.format.read_array_header_1_0(stream)
    return np.frombuffer(content, kind, offset=stream.tell()).reshape(shape)
