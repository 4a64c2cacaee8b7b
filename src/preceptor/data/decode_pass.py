"""Decoding pass over image files: each is read once, hashed, decoded and written into caches.

The results are stored in a `FileIndex`, so that a later pass does not read unchanged files if their
caches exist.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.image_format import ImageFormat
from preceptor.data.cache_folder import (
    CacheWriter,
    CanvasFormat,
    open_cache,
    stored_map,
)
from preceptor.data.checked_tables import CheckedTable, CheckedTables, TableKey
from preceptor.data.dead_fills import fill_lock, fill_prefix, remove_dead_fills
from preceptor.data.file_contents import FileContents
from preceptor.data.file_index import FileIndex, KnownFiles
from preceptor.data.file_table import Decoded, FileTable, WrongFiles
from preceptor.data.images import ImageError, decode_image, decode_map, read_file
from preceptor.data.locations.read import reading_threads
from preceptor.errors import InputError, RunFailedError
from preceptor.runtime.checksums import content_hash
from preceptor.runtime.cores import core_count
from preceptor.runtime.file_lock import locked
from preceptor.runtime.progress import Progress
from preceptor.runtime.progress import progress as progress_bar

INDEX = "index"
"""Folder of a cache folder that remembers what is known of image files."""
TABLES = "checked"
"""Folder of a cache folder with the tables that were found valid."""
# Files of a task: submitting one costs as much as decoding a small image, and a kilobyte of memory.
_PART = 32
# Bytes that must stay free on the disk after the caches are written.
SPARE_DISK = 256 * 2**20


class DecodePass:
    """Decoding pass over the files of one table, used as a context manager.

    At the end of the block, filled caches are published; if the block raises, they are removed. A
    second process with the same files waits and uses the results of the first. A killed process
    leaves a hidden folder, which the next pass that fills caches removes.

    Args:
        cache_dir: Folder of the caches and of the `FileIndex`; None = decode only.
        formats: Image formats whose caches are filled.
        threads: Number of decoding threads; None = one per core.
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        formats: Collection[ImageFormat] = (),
        threads: int | None = None,
    ) -> None:
        assert cache_dir is not None or not formats
        self._cache_dir = cache_dir
        self._formats = list(dict.fromkeys(CanvasFormat.of(form) for form in formats))
        self._threads = threads or core_count()
        self._writers: list[CacheWriter] = []
        self._valid: _Valid | None = None  # the table, if all of its files are valid
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DecodePass:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None and self._valid is not None:
                with self._naming_the_cache():
                    for writer in self._writers:
                        writer.publish(writer.form.name(self._valid.contents.digest))

    def decode(
        self,
        images: Sequence[str],
        maps: Sequence[str],
        *,
        complete: bool = True,
        progress: Progress | None = None,
    ) -> Decoded:
        """Decode the files of a table; known and unchanged ones are not read.

        Args:
            images: (n,) absolute paths or other locations, in the order of the table; "" for
                missing files.
            maps: (n,) absolute paths of the human maps, or "".
            complete: Whether the table is valid so far; otherwise no cache is filled.
            progress: Function called with (done, total) while files are read; None = a progress bar
                on a terminal.

        Raises:
            InputError: The disk is too small for the caches.
            RunFailedError: The caches cannot be written.
        """
        table = FileTable(images, maps)
        formats = self._formats if complete else []
        index = FileIndex(self._index)
        files = index.look_up(table.paths)
        missing = self._missing(formats, table.contents(files), len(images))
        if missing or not table.is_decoded(files).all():
            self._wait_for_others(table, needed=bool(formats))
            index.refresh(files)
            missing = self._missing(formats, table.contents(files), len(images))
        unread = np.ones(len(table.paths), bool) if missing else ~table.is_decoded(files)
        found = WrongFiles()
        if unread.any():
            with self._naming_the_cache():
                self._reserve(missing, table)
            found = self._read(files, table, np.flatnonzero(unread), progress)
            index.remember(files, unread & files.known)
        if complete and not found and (contents := table.contents(files)) is not None:
            self._valid = _Valid(contents, *table.states(files))
        return table.decoded(files, found)

    def find(self, key: TableKey) -> CheckedTable | None:
        """Table that was found valid before, with its files unchanged and all caches there."""
        if self._cache_dir is None:
            return None
        found = CheckedTables(self._cache_dir / TABLES).find(key)
        if found is None or self._missing(self._formats, found.contents, len(found.table)):
            return None
        return found

    def remember(self, key: TableKey, table: pd.DataFrame) -> CheckedTable | None:
        """Store a valid table for `find`.

        Returns:
            The stored table, or the given one if it cannot be stored; None if not all of its files
            were found valid by `decode`.
        """
        if self._cache_dir is None or self._valid is None:
            return None
        checked = CheckedTable(table, self._valid.contents)
        tables = CheckedTables(self._cache_dir / TABLES)
        return tables.store(key, checked, self._valid.images, self._valid.maps)

    @property
    def _index(self) -> Path | None:
        return None if self._cache_dir is None else self._cache_dir / INDEX

    def _missing(
        self, formats: Sequence[CanvasFormat], contents: FileContents | None, count: int
    ) -> list[CanvasFormat]:
        """Formats without a cache of these contents; None = not known before the pass."""
        if self._cache_dir is None or contents is None:
            return list(formats)
        return [
            form
            for form in formats
            if open_cache(self._cache_dir / form.name(contents.digest), form, count) is None
        ]

    def _wait_for_others(self, table: FileTable, *, needed: bool) -> None:
        """Acquire the lock of this table; a folder without write access is an error only if a cache
        must be filled."""
        if self._cache_dir is None:
            return
        try:
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(locked(fill_lock(self._cache_dir, table.key)))
        except OSError:
            if needed:
                raise

    def _reserve(self, formats: Sequence[CanvasFormat], table: FileTable) -> None:
        """Create the hidden folders of the caches to be filled."""
        if self._cache_dir is None or not formats:
            return
        # The lock of this table is held; the sizes of dead folders count as used space.
        remove_dead_fills(self._cache_dir, table.key)
        count = len(table.images), int(table.has_map.sum())
        needed = sum(form.bytes_needed(*count) for form in formats)
        free = shutil.disk_usage(self._cache_dir).free
        if needed + SPARE_DISK > free:
            raise InputError(
                f"image cache {self._cache_dir}: needs {needed / 2**20:,.0f} MiB and "
                f"{free / 2**20:,.0f} MiB are free; choose another folder or set cache: none"
            )
        for form in formats:
            writer = CacheWriter(self._cache_dir, fill_prefix(table.key), form, table.has_map)
            self._stack.callback(writer.close)
            self._writers.append(writer)

    def _read(
        self,
        files: KnownFiles,
        table: FileTable,
        which: NDArray[np.int64],
        progress: Progress | None,
    ) -> WrongFiles:
        """Read the files at these positions; returns the problems."""
        files.known[which] = False
        files.as_image[which] = files.as_map[which] = False
        wrong = WrongFiles()

        def read(at: int) -> None:
            path = table.paths[at]
            try:
                content = read_file(path)
            except ImageError as error:
                wrong.images[at] = wrong.maps[at] = error.reason
                return
            files.digest[at] = np.frombuffer(content_hash(content), np.uint8)
            files.known[at] = True
            with decoding:
                decode(at, path, content)

        def decode(at: int, path: str, content: bytes) -> None:
            if table.is_image[at]:
                try:
                    files.size[at] = self._put_image(path, content, table.rows_of_image(at))
                    files.as_image[at] = True
                except ImageError as error:
                    wrong.images[at] = error.reason
            if table.is_map[at]:
                try:
                    files.size[at] = self._put_map(path, content, table.rows_of_map(at))
                    files.as_map[at] = True
                except ImageError as error:
                    wrong.maps[at] = error.reason

        def read_part(part: NDArray[np.int64]) -> int:
            for at in part.tolist():
                read(at)
            return len(part)

        # Many threads wait for the network; a few of them decode, which takes cores and memory.
        threads = reading_threads([table.paths[at] for at in which.tolist()], self._threads)
        decoding: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if threads > self._threads:
            decoding = threading.Semaphore(self._threads)
        size = min(_PART, max(1, len(which) // (8 * threads)))
        parts = np.array_split(which, -(-len(which) // size))
        title, done = f"reading {len(which):,} images", 0
        with ThreadPoolExecutor(threads) as pool, _shown(progress, title) as shown:
            try:
                for count in pool.map(read_part, parts):
                    done += count
                    shown(done, len(which))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return wrong

    def _put_image(self, path: str, content: bytes, rows: NDArray[np.int64]) -> tuple[int, int]:
        for channels in dict.fromkeys(writer.form.channels for writer in self._writers) or (3,):
            image = decode_image(path, channels, content)
            for writer in self._writers:
                if writer.form.channels == channels:
                    writer.put_image(rows, image)
        return image.shape[1], image.shape[0]

    def _put_map(self, path: str, content: bytes, rows: NDArray[np.int64]) -> tuple[int, int]:
        values = decode_map(path, content)
        if self._writers:
            stored = stored_map(values)
            for writer in self._writers:
                writer.put_map(rows, stored)
        return values.shape[1], values.shape[0]

    @contextlib.contextmanager
    def _naming_the_cache(self) -> Iterator[None]:
        """Context that converts write errors to a message of one line with the folder."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunFailedError(f"image cache {self._cache_dir}: {reason}") from error


@dataclass(frozen=True)
class _Valid:
    """Table with valid files: hashes of their contents, and states of images and maps by row."""

    contents: FileContents
    images: NDArray[np.int64]
    maps: NDArray[np.int64]


@contextlib.contextmanager
def _shown(progress: Progress | None, title: str) -> Iterator[Progress]:
    """Progress function: that of the caller, or a progress bar."""
    if progress is not None:
        yield progress
        return
    with progress_bar() as bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total: bar.update(task, completed=done, total=total)
