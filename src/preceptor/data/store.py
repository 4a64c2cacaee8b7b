"""Image cache on the disk: arrays by the content hash of their file, and what is known of paths.

A cache folder has two files for each format, which only grow: NAME.pixels with the arrays one after
the other, and NAME.entries with the content hash, width and height of each file. An entry is
written after its array is on the disk: what has no entry is overwritten. `files.sqlite` knows in
which state each path was read; unchanged files are not read. One process at a time fills a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import MAP_SIDE, render
from preceptor.data.images import ImageError, decode_map, load_image, read_file
from preceptor.errors import InputError, RunFailedError
from preceptor.utils import process
from preceptor.utils.process import core_count
from preceptor.utils.results import DIGEST_BYTES, content_hash
from preceptor.utils.text import Progress, track

# Increased if the decoded pixels of the same file change.
_IMAGES, _MAPS = 3, 4
_ENTRY = np.dtype([("digest", np.uint8, DIGEST_BYTES), ("size", "<i4", 2)])
_DECODER = 2  # increased if accepted files would be rejected
_PATHS = 500  # paths of a query
_NONE = "0" * (2 * DIGEST_BYTES)
SPARE_DISK = 256 * 2**20
"""Bytes that stay free on the disk after a cache is filled."""
_STORED_BYTES, _STORED_SECONDS = 64 * 2**20, 30.0  # what a killed process loses at most
_PART = 32  # files of a task: single files cost more than their hand-over


@dataclass(frozen=True, eq=False)
class FileContents:
    """Content hashes of the images and maps of a table, by row."""

    images: NDArray[np.uint8]  # (n, 16) BLAKE2b hashes
    maps: NDArray[np.uint8]  # (n, 16), 0 for rows without a human map
    sizes: NDArray[np.int32]  # (n, 2) width and height of the images; 0 = not known

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """Hash of all content hashes."""
        both = np.hstack([self.images, self.maps])
        return hashlib.blake2b(both.tobytes(), digest_size=DIGEST_BYTES).hexdigest()


def written(hashes: NDArray[np.uint8]) -> list[str]:
    """(n, 16) hashes in hex; "" for hashes that are 0."""
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
    rows: NDArray[np.int64] = position.fill_null(-1).to_numpy().astype(np.int64)
    return rows


@dataclass(frozen=True)
class Store:
    """Arrays of one format in a cache folder."""

    folder: Path
    name: str
    shape: tuple[int, ...]  # of an array
    form: ImageFormat | None = None  # None for human maps

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

    def file(self, suffix: str) -> Path:
        """File of the pixels or the entries."""
        return self.folder / f"{self.name}.{suffix}"

    def count(self) -> int:
        """Number of arrays with an entry."""
        try:
            entries = self.file("entries").stat().st_size // _ENTRY.itemsize
            return min(entries, self.file("pixels").stat().st_size // self.item_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def digests(self) -> NDArray[np.uint8]:
        """(m, 16) content hashes of the arrays."""
        count = self.count()
        if not count:
            return np.empty((0, DIGEST_BYTES), np.uint8)
        return np.ascontiguousarray(np.fromfile(self.file("entries"), _ENTRY, count)["digest"])

    def sizes(self) -> NDArray[np.int32]:
        """(m, 2) width and height of the decoded files."""
        sizes: NDArray[np.int32] = np.fromfile(self.file("entries"), _ENTRY, self.count())["size"]
        return sizes

    def pixels(self) -> NDArray[np.uint8]:
        """(m, …) memory-mapped arrays."""
        count = self.count()
        if not count:
            return np.empty((0, *self.shape), np.uint8)
        with self.file("pixels").open("rb") as file:
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
        self._pixels = _opened(store.file("pixels"), self._count * store.item_bytes)
        self._entries = _opened(store.file("entries"), self._count * _ENTRY.itemsize)

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

    images: Sequence[str]  # (n,) locations of the images; "" for none
    maps: Sequence[str]  # (n,) of their human maps

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
        """Read the current state of all files; 0 for files that cannot be read."""
        for at, path in enumerate(self.paths):
            with contextlib.suppress(OSError):
                state = os.stat(path)  # noqa: PTH116 (a million files)
                self.state[at] = state.st_size, state.st_mtime_ns, state.st_ctime_ns

    @property
    def is_valid(self) -> NDArray[np.bool_]:
        """(m,) whether each file is known to be valid in all of its uses."""
        return (self.as_image | ~self.is_image) & (self.as_map | ~self.is_map)

    def contents(self) -> FileContents:
        """Content hashes and sizes by row."""
        digest = np.vstack([self.digest, np.zeros((1, DIGEST_BYTES), np.uint8)])
        size = np.vstack([self.size * self.as_image[:, None], np.zeros((1, 2), np.int32)])
        return FileContents(digest[self.image], digest[self.map], size[self.image])


def _index(folder: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(str(folder / "files.sqlite"), timeout=60))


def look_up(files: TableFiles, folder: Path | None) -> None:
    """Fill in what the index of a cache folder knows of unchanged files."""
    if folder is None or not (folder / "files.sqlite").exists():
        return
    at_path = {os.fsencode(path): at for at, path in enumerate(files.paths)}
    paths = list(at_path)
    # A damaged index, or one of a folder without write access, knows nothing.
    with contextlib.suppress(sqlite3.DatabaseError), _index(folder) as database:
        for start in range(0, len(paths), _PATHS):
            part = paths[start : start + _PATHS]
            query = f"SELECT * FROM files WHERE path IN ({','.join('?' * len(part))})"
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


def remember(files: TableFiles, folder: Path | None, which: Sequence[int]) -> None:
    """Store what is known of files, with their states from before they were read."""
    if folder is None or not which:
        return
    rows = [
        (
            os.fsencode(files.paths[at]),
            *files.state[at].tolist(),
            files.digest[at].tobytes(),
            *files.size[at].tolist(),
            _DECODER if files.as_image[at] else 0,
            _DECODER if files.as_map[at] else 0,
        )
        for at in which
    ]
    with contextlib.suppress(sqlite3.DatabaseError, OSError), _index(folder) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INT, changed INT, "
            "mark INT, digest BLOB, width INT, height INT, image INT, map INT) WITHOUT ROWID"
        )
        marks = ",".join("?" * 9)
        database.executemany(f"INSERT OR REPLACE INTO files VALUES ({marks})", rows)


@dataclass
class Examined:
    """Result of reading the files of a table, by row."""

    image_sizes: NDArray[np.int32]  # (n, 2) width and height; 0 for files that are not decoded
    map_sizes: NDArray[np.int32]
    wrong_images: dict[int, str]  # why a file cannot be decoded, by row
    wrong_maps: dict[int, str]
    contents: FileContents | None  # None if any file is not valid


@dataclass
class _Read:
    """What was found of a file: its hash, its size, reasons of errors, and arrays by store."""

    at: int
    digest: bytes | None = None
    size: tuple[int, int] = (0, 0)
    wrong_image: str = ""
    wrong_map: str = ""
    arrays: dict[int, NDArray[np.uint8]] = field(default_factory=dict)


def examine(
    images: Sequence[str],
    maps: Sequence[str],
    *,
    cache_dir: Path | None = None,
    formats: Collection[ImageFormat] = (),
    decode: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Examined:
    """Hash and decode the files of a table and fill the cache, or hash them only.

    Known and unchanged files are not read.
    """
    files = TableFiles(images, maps)
    files.read_states()
    look_up(files, cache_dir)
    stores = stores_of(cache_dir, formats) if cache_dir is not None and formats else []

    def absent(store: Store) -> NDArray[np.bool_]:
        which = files.is_map if store.form is None else files.is_image
        return which & (positions_among(files.digest, store.digests()) < 0)

    def unread() -> NDArray[np.bool_]:
        """(m,) files that are not known to be valid, or that a store lacks."""
        known = files.is_valid if decode else files.known
        needed: NDArray[np.bool_] = np.logical_or.reduce([~known, *map(absent, stores)])
        return needed

    wrong: dict[int, _Read] = {}
    if unread().any():
        with _locked(cache_dir, needed=bool(stores)):
            look_up(files, cache_dir)  # another process may have read them meanwhile
            if (which := np.flatnonzero(unread())).size:
                needed = sum(store.item_bytes * int(absent(store).sum()) for store in stores)
                if stores:
                    _check_space(stores[0].folder, needed)
                reading = _Reading(files, cache_dir, stores, decode, workers or core_count())
                wrong = reading.run(which, progress)
    size = np.vstack([files.size, np.zeros((1, 2), np.int32)])
    as_image, as_map = np.append(files.as_image, False), np.append(files.as_map, False)
    result = Examined(
        size[files.image] * as_image[files.image, None],
        size[files.map] * as_map[files.map, None],
        {},
        {},
        files.contents() if files.known.all() and not wrong else None,
    )
    for which, reasons, name in (
        (files.image, result.wrong_images, "wrong_image"),
        (files.map, result.wrong_maps, "wrong_map"),
    ):
        for row in np.flatnonzero(np.isin(which, list(wrong))).tolist():
            if why := getattr(wrong[int(which[row])], name):
                reasons[row] = why
    return result


def fill(
    store: Store,
    hashes: NDArray[np.uint8],
    make: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    batch: int,
    tell: Callable[[int], None],
) -> NDArray[np.int64]:
    """Append the arrays of (n, 16) contents that a store lacks; returns the positions of all.

    `make` makes the arrays of at most `batch` positions among the contents, and `tell` is called
    with the number that is lacking. One process at a time fills a store.
    """
    if (positions_among(hashes, store.digests()) < 0).any():
        with _locked(store.folder, needed=True, name=f"{store.name}.lock"):
            left = np.flatnonzero(positions_among(hashes, store.digests()) < 0)
            _check_space(store.folder, len(left) * store.item_bytes)
            if len(left):  # another process may have made them meanwhile
                tell(len(left))
            parts = [left[start : start + batch] for start in range(0, len(left), batch)]
            with contextlib.closing(StoreWriter(store)) as writer:
                for part in track(parts, total=len(parts), title="features"):
                    for at, array in zip(part, make(part), strict=True):
                        writer.put(hashes[at].tobytes(), array, (0, 0))
                    writer.flush()
                    process.beat()
    return positions_among(hashes, store.digests())


def _check_space(folder: Path, needed: int) -> None:
    """Check that so many bytes more fit on the disk of a cache folder."""
    if needed + SPARE_DISK > shutil.disk_usage(folder).free:
        raise InputError(
            f"image cache {folder}: {needed / 2**20:,.0f} MiB more do not fit on the disk; free "
            "some, or choose another folder (store in a study file, else PRECEPTOR_CACHE)"
        )


@contextlib.contextmanager
def _locked(cache_dir: Path | None, *, needed: bool, name: str = "fill.lock") -> Iterator[None]:
    """Lock of a cache folder; one without write access is an error only if it must be filled."""
    with contextlib.ExitStack() as stack:
        try:
            if cache_dir is not None:
                cache_dir.mkdir(parents=True, exist_ok=True)
                lock = FileLock(cache_dir / name)
                while not lock.is_locked:
                    try:
                        stack.enter_context(lock.acquire(timeout=30))
                    except Timeout:
                        process.beat()  # a worker that waits for another is not hung
        except (OSError, NotImplementedError) as error:
            if needed:
                why = getattr(error, "strerror", None) or error
                raise RunFailedError(f"image cache {cache_dir}: {why}") from error
        yield


class _Reading:
    """Reading and decoding of files by threads; what they find is stored by this one."""

    def __init__(
        self,
        files: TableFiles,
        cache_dir: Path | None,
        stores: Sequence[Store],
        decode: bool,
        workers: int,
    ) -> None:
        self._files, self._cache_dir, self._decode = files, cache_dir, decode
        self._stores, self._workers = stores, workers
        self._writers: list[StoreWriter] = []
        self._noted: list[int] = []
        self._decoding = threading.Semaphore(workers)

    def run(self, which: NDArray[np.int64], progress: Progress | None) -> dict[int, _Read]:
        """Read the files at these positions; returns those that cannot be decoded."""
        wrong: dict[int, _Read] = {}
        try:
            with contextlib.ExitStack() as stack:
                for store in self._stores:
                    self._writers.append(StoreWriter(store))
                    stack.callback(self._writers[-1].close)
                stack.push(self._flush_at_the_end)
                done, stored = 0, time.monotonic()
                for part in self._parts(which):
                    for read in part:
                        self._note(read)
                        if read.wrong_image or read.wrong_map:
                            wrong[read.at] = read
                    done += len(part)
                    if progress is not None:
                        progress(done, len(which))
                    pending = sum(writer.pending_bytes for writer in self._writers)
                    if pending > _STORED_BYTES or time.monotonic() - stored > _STORED_SECONDS:
                        self._flush()
                        stored = time.monotonic()
        except OSError as error:
            told = error.strerror or error
            raise RunFailedError(f"image cache {self._cache_dir}: {told}") from error
        return wrong

    def _flush_at_the_end(self, kind: type[BaseException] | None, *_: object) -> None:
        """Flush; an error that ends the reading is not replaced by one of the disk."""
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._flush()

    def _flush(self) -> None:
        for writer in self._writers:
            writer.flush()
        remember(self._files, self._cache_dir, self._noted)
        self._noted.clear()

    def _parts(self, which: NDArray[np.int64]) -> Iterator[list[_Read]]:
        """What was found of the files, in their order; few parts wait at a time."""
        threads = self._workers
        size = min(_PART, max(1, len(which) // (8 * threads)))
        if self._files.is_map.any() and self._stores:
            from preceptor.data import resampling  # noqa: F401 (torch, once and not in threads)
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[list[_Read]]] = deque()
            try:
                for start in range(0, len(which), size):
                    part = which[start : start + size].tolist()
                    waiting.append(pool.submit(lambda part: list(map(self._read, part)), part))
                    if len(waiting) > 2 * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, at: int) -> _Read:
        """Read, hash and decode a file, and make the arrays that the stores lack."""
        files, path, read = self._files, self._files.paths[at], _Read(at)
        try:
            content = read_file(path)
        except ImageError as error:
            read.wrong_image = read.wrong_map = error.reason
            return read
        read.digest = content_hash(content)
        lacking = [n for n, one in enumerate(self._writers) if read.digest not in one.there]
        with self._decoding:
            if self._decode and files.is_image[at]:
                try:
                    self._decode_image(path, content, read, lacking)
                except ImageError as error:
                    read.wrong_image = error.reason
            if self._decode and files.is_map[at]:
                try:
                    values = decode_map(path, content)
                    read.size = values.shape[1], values.shape[0]
                    if lacking and lacking[-1] == len(self._writers) - 1:
                        from preceptor.data.resampling import stored_map

                        read.arrays[lacking[-1]] = stored_map(values)
                except ImageError as error:
                    read.wrong_map = error.reason
        return read

    def _decode_image(self, path: str, content: bytes, read: _Read, lacking: list[int]) -> None:
        forms = {n: self._stores[n].form for n in lacking}
        for channels in dict.fromkeys(form.channels for form in forms.values() if form) or (3,):
            image = load_image(path, channels, content)
            read.size = image.size
            for n, form in forms.items():
                if form is not None and form.channels == channels:
                    read.arrays[n] = render(image, form.fit, form.side)

    def _note(self, read: _Read) -> None:
        files, at = self._files, read.at
        if read.digest is None:
            files.known[at] = False
            return
        files.known[at] = True
        files.as_image[at] = self._decode and files.is_image[at] and not read.wrong_image
        files.as_map[at] = self._decode and files.is_map[at] and not read.wrong_map
        files.size[at] = read.size
        files.digest[at] = np.frombuffer(read.digest, np.uint8)
        for number, array in read.arrays.items():
            self._writers[number].put(read.digest, array, read.size)
        self._noted.append(at)
