"""Image cache on the disk: arrays by the content hash of their file, and what is known of paths.

A cache folder has two files for each format, which only grow: NAME.pixels with the arrays one after
the other, and NAME.entries with 24 bytes for each of them, the content hash, width and height of
its file. An entry is written after its array is on the disk, so that a process may be killed at any
moment: what has no entry is overwritten by the next. `files.sqlite` knows in which state each path
was read.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import MAP_SIDE
from preceptor.data.remote import not_plain, states_of
from preceptor.utils.results import DIGEST_BYTES

# Increased if the decoded pixels of the same file change.
_IMAGES, _MAPS = 3, 4
_ENTRY = np.dtype([("digest", np.uint8, DIGEST_BYTES), ("size", "<i4", 2)])
_DECODER = 1  # increased if accepted files would be rejected
_PATHS = 500  # paths of a query
_NONE = "0" * (2 * DIGEST_BYTES)


@dataclass(frozen=True, eq=False)
class FileContents:
    """Content hashes of the images and maps of a table, by row."""

    images: NDArray[np.uint8]  # (n, 16) uint8, BLAKE2b hashes of the images
    maps: NDArray[np.uint8]  # (n, 16) uint8, the same of their human maps; 0 for rows without one
    sizes: NDArray[np.int32]  # (n, 2) int32 width and height of the images; 0 = not known

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """Hash of all content hashes."""
        both = np.hstack([self.images, self.maps])
        return hashlib.blake2b(both.tobytes(), digest_size=DIGEST_BYTES).hexdigest()

    def select(self, mask: NDArray[np.bool_]) -> FileContents:
        """Content hashes of the rows with `mask` true."""
        return FileContents(self.images[mask], self.maps[mask], self.sizes[mask])


def written(hashes: NDArray[np.uint8]) -> list[str]:
    """Hashes in hex; "" for hashes that are 0. `hashes` (n, 16) uint8."""
    text, size = np.ascontiguousarray(hashes).tobytes().hex(), 2 * DIGEST_BYTES
    parts = (text[start : start + size] for start in range(0, len(text), size))
    return ["" if part == _NONE else part for part in parts]


def arrow_hashes(hashes: NDArray[np.uint8]) -> pa.Array:
    """(n, 16) hashes as an Arrow array."""
    data = pa.py_buffer(np.ascontiguousarray(hashes))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(hashes), [None, data])


def positions_among(hashes: NDArray[np.uint8], among: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n,) position of each hash among others; −1 for none."""
    position = pc.index_in(arrow_hashes(hashes), value_set=arrow_hashes(among))
    found: NDArray[np.int64] = position.fill_null(-1).to_numpy().astype(np.int64)
    return found


@dataclass(frozen=True)
class Store:
    """Arrays of one format in a cache folder."""

    folder: Path  # Cache folder
    name: str  # Name of the format
    shape: tuple[int, ...]  # Shape of an array
    form: ImageFormat | None = None  # Format of the canvases; None for human maps

    @classmethod
    def of(cls, folder: Path, form: ImageFormat | None) -> Store:
        """Canvases of a format; human maps if the format is None."""
        if form is None:
            return cls(folder, f"maps-{MAP_SIDE}-v{_MAPS}", (MAP_SIDE, MAP_SIDE))
        name = f"{form.side}-{form.fit}-{form.channels}-v{_IMAGES}"
        return cls(folder, name, (form.side, form.side, form.channels), form)

    @property
    def item_bytes(self) -> int:
        """Disk space of an array."""
        return int(np.prod(self.shape))

    @property
    def pixels_file(self) -> Path:
        """File of the arrays."""
        return self.folder / f"{self.name}.pixels"

    @property
    def entries_file(self) -> Path:
        """File of the entries."""
        return self.folder / f"{self.name}.entries"

    def count(self) -> int:
        """Number of arrays with an entry."""
        try:
            entries = self.entries_file.stat().st_size // _ENTRY.itemsize
            return min(entries, self.pixels_file.stat().st_size // self.item_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def digests(self) -> NDArray[np.uint8]:
        """(m, 16) content hashes of the arrays."""
        count = self.count()
        if not count:
            return np.empty((0, DIGEST_BYTES), np.uint8)
        digests: NDArray[np.uint8] = np.fromfile(self.entries_file, _ENTRY, count)["digest"]
        return np.ascontiguousarray(digests)

    def sizes(self) -> NDArray[np.int32]:
        """(m, 2) width and height of the decoded files."""
        sizes: NDArray[np.int32] = np.fromfile(self.entries_file, _ENTRY, self.count())["size"]
        return sizes

    def pixels(self) -> NDArray[np.uint8]:
        """(m, …) memory-mapped arrays."""
        count = self.count()
        if not count:
            return np.empty((0, *self.shape), np.uint8)
        with self.pixels_file.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), count * self.item_bytes, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, np.uint8).reshape(count, *self.shape)


def stores_of(cache_dir: Path, formats: Collection[ImageFormat]) -> list[Store]:
    """Distinct stores of the formats, and that of the maps at the end."""
    stores = (Store.of(cache_dir, form) for form in (*formats, None))
    return list({store.name: store for store in stores}.values())


class StoreWriter:
    """Appends arrays to a store, whose folder must be locked."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.there = {digest.tobytes() for digest in store.digests()}
        self._count = len(store.digests())
        self._pending: list[tuple[bytes, tuple[int, int]]] = []
        self._pixels = _opened(store.pixels_file, self._count * store.item_bytes)
        self._entries = _opened(store.entries_file, self._count * _ENTRY.itemsize)

    @property
    def pending_bytes(self) -> int:
        """Bytes of arrays without an entry."""
        return len(self._pending) * self.store.item_bytes

    def put(self, digest: bytes, array: NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Append an array, unless there is one of this content."""
        if digest not in self.there:
            _write(self._pixels, np.ascontiguousarray(array).data.cast("B"))
            self._pending.append((digest, size))
            self.there.add(digest)

    def flush(self) -> None:
        """Write the entries of the arrays, after these are on the disk."""
        if self._pending:
            os.fsync(self._pixels.fileno())
            entries = np.empty(len(self._pending), _ENTRY)
            for at, (digest, size) in enumerate(self._pending):
                entries[at] = np.frombuffer(digest, np.uint8), size
            _write(self._entries, memoryview(entries.tobytes()))
            os.fsync(self._entries.fileno())
            self._pending.clear()

    def close(self) -> None:
        """Close the files; arrays without an entry are lost."""
        self._pixels.close()
        self._entries.close()


def _opened(path: Path, size: int) -> BinaryIO:
    """File, unbuffered, cut after `size` bytes: what follows was not finished."""
    file: Any = path.open("r+b" if path.exists() else "w+b", buffering=0)
    file.truncate(size)
    file.seek(size)
    return file  # type: ignore[no-any-return]


def _write(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


@dataclass
class TableFiles:
    """Distinct files of a table, and what is known of them in their current state."""

    images: Sequence[str]  # (n,) locations of the images and of their human maps; "" for none
    maps: Sequence[str]  # (n,) locations of the images and of their human maps; "" for none
    errors: dict[int, OSError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        both = pd.Series([*self.images, *self.maps], dtype=object)
        codes, paths = pd.factorize(both.where(both != "", None))  # −1 for none
        self.paths: list[str] = list(paths)
        self.image, self.map = codes[: len(self.images)], codes[len(self.images) :]
        count = len(self.paths)
        self.is_image, self.is_map = np.zeros((2, count), bool)
        self.is_image[self.image[self.image >= 0]] = True
        self.is_map[self.map[self.map >= 0]] = True
        self.state = np.zeros((count, 3), np.int64)
        self.digest = np.zeros((count, DIGEST_BYTES), np.uint8)
        self.size = np.zeros((count, 2), np.int32)
        self.known, self.as_image, self.as_map = np.zeros((3, count), bool)

    def read_states(self) -> None:
        """Read the current state of all files."""
        apart = not_plain(self.paths)
        for at, state in zip(apart, states_of([self.paths[at] for at in apart]), strict=True):
            if isinstance(state, OSError):
                self.errors[at] = state
            else:
                self.state[at] = state
        left = set(range(len(self.paths))).difference(apart)
        for at in left:
            try:
                found = os.stat(self.paths[at])  # noqa: PTH116 (a million Paths are dear)
                self.state[at] = found.st_size, found.st_mtime_ns, found.st_ctime_ns
            except OSError as error:
                self.errors[at] = error

    @property
    def is_valid(self) -> NDArray[np.bool_]:
        """(m,) whether each file is known to be valid in all of its uses."""
        return (self.as_image | ~self.is_image) & (self.as_map | ~self.is_map)

    def contents(self) -> FileContents:
        """Content hashes and sizes by row."""
        digest = np.vstack([self.digest, np.zeros((1, DIGEST_BYTES), np.uint8)])
        size = np.vstack([self.size * self.as_image[:, None], np.zeros((1, 2), np.int32)])
        return FileContents(digest[self.image], digest[self.map], size[self.image])


class FileIndex:
    """Known content hashes and sizes of files by path and state; None = nothing is stored."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "files.sqlite"

    def _opened(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(str(self._file), timeout=60))

    def look_up(self, files: TableFiles) -> None:
        """Fill in what is known of unchanged files."""
        if self._file is None or not self._file.exists():
            return
        at_path = {os.fsencode(path): at for at, path in enumerate(files.paths)}
        paths = list(at_path)
        # A damaged index, or one of a folder without write access, knows nothing.
        with contextlib.suppress(sqlite3.DatabaseError), self._opened() as database:
            for start in range(0, len(paths), _PATHS):
                part = paths[start : start + _PATHS]
                marks = ",".join("?" * len(part))
                query = f"SELECT * FROM files WHERE path IN ({marks})"
                rows = database.execute(query, part).fetchall()
                if not rows:
                    continue
                known, size, changed, mark, digest, *others = zip(*rows, strict=True)
                width, height, image, saliency = np.array(others, np.int64)
                at = np.array([at_path[path] for path in known])
                same = (files.state[at] == np.array([size, changed, mark]).T).all(1)
                at = at[same]  # the state of a file with an error is 0
                files.known[at] = True
                hashes = np.frombuffer(b"".join(digest), np.uint8).reshape(-1, DIGEST_BYTES)
                files.digest[at] = hashes[same]
                files.size[at] = np.stack([width, height], 1)[same]
                files.as_image[at] = image[same] == _DECODER
                files.as_map[at] = saliency[same] == _DECODER

    def remember(self, files: TableFiles, which: Sequence[int]) -> None:
        """Store what is known of files, with their states from before they were read."""
        if self._file is None or not which:
            return
        flags = {True: _DECODER, False: 0}
        rows = [
            (
                os.fsencode(files.paths[at]),
                *files.state[at].tolist(),
                files.digest[at].tobytes(),
                *files.size[at].tolist(),
                flags[bool(files.as_image[at])],
                flags[bool(files.as_map[at])],
            )
            for at in which
        ]
        with contextlib.suppress(sqlite3.DatabaseError, OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._opened() as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INT, "
                    "changed INT, mark INT, digest BLOB, width INT, height INT, image INT, map INT)"
                    " WITHOUT ROWID"
                )
                marks = ",".join("?" * 9)
                database.executemany(f"INSERT OR REPLACE INTO files VALUES ({marks})", rows)
