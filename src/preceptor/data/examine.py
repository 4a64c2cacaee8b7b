"""Reading of the files of a table: each is read once, hashed, decoded and stored in the cache.

Known and unchanged files are not read. One process at a time fills a cache folder; others wait and
use its results.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import render
from preceptor.data.images import ImageError, decode_map, load_image, read_file
from preceptor.data.remote import reading_threads
from preceptor.data.store import (
    FileContents,
    FileIndex,
    Store,
    StoreWriter,
    TableFiles,
    positions_among,
    stores_of,
)
from preceptor.errors import InputError, RunFailedError
from preceptor.utils.process import core_count
from preceptor.utils.results import content_hash
from preceptor.utils.text import Progress

SPARE_DISK = 256 * 2**20
"""Bytes that stay free on the disk after a cache is filled."""
_STORED_BYTES, _STORED_SECONDS = 64 * 2**20, 30.0  # what a killed process loses at most
_PART = 32  # files of a task: single files cost more than their hand-over


@dataclass
class Examined:
    """Result of reading the files of a table, by row."""

    # (n, 2) int32 width and height; 0 for files that are not decoded
    image_sizes: NDArray[np.int32]
    map_sizes: NDArray[np.int32]  # (n, 2) int32 width and height; 0 for files that are not decoded
    wrong_images: dict[int, str]  # Reasons of files that cannot be decoded, by row
    wrong_maps: dict[int, str]  # Reasons of files that cannot be decoded, by row
    contents: FileContents | None  # Content hashes, if all files are valid


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
    workers: int | None = None,
    progress: Progress | None = None,
) -> Examined:
    """Decode the files of a table and fill the cache; known and unchanged files are not read.

    `images` (n,); `maps` (n,).
    """
    files, index = TableFiles(images, maps), FileIndex(cache_dir)
    files.read_states()
    index.look_up(files)
    stores: list[Store] = []
    if cache_dir is not None and formats:
        stores = stores_of(cache_dir, formats)
    wrong: dict[int, _Read] = {}
    if _unread(files, stores).any():
        with _locked(cache_dir, needed=bool(stores)):
            index.look_up(files)  # another process may have read them meanwhile
            unread = _unread(files, stores)
            if unread.any():
                reading = _Reading(files, index, stores, workers or core_count())
                wrong = reading.run(np.flatnonzero(unread), progress)
    return _examined(files, wrong)


def _examined(files: TableFiles, wrong: dict[int, _Read]) -> Examined:
    size = np.vstack([files.size, np.zeros((1, 2), np.int32)])
    as_image, as_map = np.append(files.as_image, False), np.append(files.as_map, False)
    result = Examined(
        size[files.image] * as_image[files.image, None],
        size[files.map] * as_map[files.map, None],
        {},
        {},
        files.contents() if files.known.all() and not wrong else None,
    )
    if wrong:
        positions = np.array(list(wrong))
        for row in np.flatnonzero(np.isin(files.image, positions)).tolist():
            if why := wrong[int(files.image[row])].wrong_image:
                result.wrong_images[row] = why
        for row in np.flatnonzero(np.isin(files.map, positions)).tolist():
            if why := wrong[int(files.map[row])].wrong_map:
                result.wrong_maps[row] = why
    return result


def _unread(files: TableFiles, stores: Sequence[Store]) -> NDArray[np.bool_]:
    """(m,) files that are not known to be valid, or that a store lacks."""
    unread = ~files.is_valid
    for store in stores:
        unread |= _absent(store, files)
    return unread


def _absent(store: Store, files: TableFiles) -> NDArray[np.bool_]:
    which = files.is_map if store.form is None else files.is_image
    absent = which & ~files.known
    known = np.flatnonzero(which & files.known)
    absent[known[positions_among(files.digest[known], store.digests()) < 0]] = True
    return absent


@contextlib.contextmanager
def _locked(cache_dir: Path | None, *, needed: bool) -> Iterator[None]:
    """Lock of a cache folder; one without write access is an error only if it must be filled."""
    if cache_dir is None:
        yield
        return
    lock = FileLock(cache_dir / "fill.lock")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if needed:
            raise RunFailedError(f"image cache {cache_dir}: {error}") from error
        yield
        return
    try:
        yield
    finally:
        lock.release()


class _Reading:
    """Reading and decoding of files by threads; what they find is stored by this one."""

    def __init__(
        self, files: TableFiles, index: FileIndex, stores: Sequence[Store], workers: int
    ) -> None:
        self._files, self._index, self._workers = files, index, workers
        self._stores = stores
        self._writers: list[StoreWriter] = []
        self._noted: list[int] = []
        self._decoding = threading.Semaphore(workers)

    def run(self, which: NDArray[np.int64], progress: Progress | None) -> dict[int, _Read]:
        """Read the files at these positions; returns those that cannot be decoded."""
        wrong: dict[int, _Read] = {}
        try:
            self._check_disk()
            with contextlib.ExitStack() as stack:
                for store in self._stores:
                    self._writers.append(StoreWriter(store))
                    stack.callback(self._writers[-1].close)
                try:
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
                        late = time.monotonic() - stored > _STORED_SECONDS
                        if pending > _STORED_BYTES or late:
                            self._flush()
                            stored = time.monotonic()
                except BaseException:
                    with contextlib.suppress(OSError):
                        self._flush()
                    raise
                self._flush()
        except OSError as error:
            folder = self._stores[0].folder if self._stores else "of files"
            told = error.strerror or error
            raise RunFailedError(f"image cache {folder}: {told}") from error
        return wrong

    def _check_disk(self) -> None:
        if not self._stores:
            return
        folder = self._stores[0].folder
        needed = SPARE_DISK + sum(
            store.item_bytes * int(_absent(store, self._files).sum()) for store in self._stores
        )
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"image cache {folder}: needs {needed / 2**20:,.0f} MiB, with a reserve, and "
                f"{free / 2**20:,.0f} MiB are free; choose another folder or set cache: none"
            )

    def _parts(self, which: NDArray[np.int64]) -> Iterator[list[_Read]]:
        """What was found of the files, in their order; few parts wait at a time."""
        paths = self._files.paths
        threads = reading_threads([paths[at] for at in which.tolist()], self._workers)
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
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

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
            if files.is_image[at]:
                try:
                    self._decode_image(path, content, read, lacking)
                except ImageError as error:
                    read.wrong_image = error.reason
            if files.is_map[at]:
                try:
                    values = decode_map(path, content)
                    read.size = values.shape[1], values.shape[0]
                    if lacking and lacking[-1] == len(self._writers) - 1:
                        read.arrays[lacking[-1]] = _stored_map(values)
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
        files.known[at] = read.digest is not None
        files.as_image[at] = files.is_image[at] and not read.wrong_image
        files.as_map[at] = files.is_map[at] and not read.wrong_map
        files.size[at] = read.size
        if read.digest is not None:
            files.digest[at] = np.frombuffer(read.digest, np.uint8)
            for number, array in read.arrays.items():
                self._writers[number].put(read.digest, array, read.size)
            self._noted.append(at)

    def _flush(self) -> None:
        for writer in self._writers:
            writer.flush()
        self._index.remember(self._files, self._noted)
        self._noted.clear()


def _stored_map(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    from preceptor.data.resampling import stored_map

    return stored_map(values)
