"""Decoding pass over image files: each is read once, hashed, decoded and written into the cache.

The results are stored in a `FileIndex`, so that a later pass does not read unchanged files whose
images are in the cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.cache_fill import CacheFill, Missing
from preceptor.data.cache_lock import cache_in_use
from preceptor.data.cache_view import open_view
from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.checked_tables import CheckedTable, CheckedTables, TableKey
from preceptor.data.dead_fills import fill_lock
from preceptor.data.file_contents import FileContents
from preceptor.data.file_index import FileIndex, KnownFiles
from preceptor.data.file_reading import FileReading
from preceptor.data.file_table import Decoded, FileTable, WrongFiles
from preceptor.errors import RunFailedError
from preceptor.runtime.cores import core_count
from preceptor.runtime.file_lock import locked
from preceptor.runtime.progress import Progress

INDEX = "index"
"""Folder of a cache folder that remembers what is known of image files."""
TABLES = "checked"
"""Folder of a cache folder with the tables that were found valid."""


class DecodePass:
    """Decoding pass over the files of one table, used as a context manager.

    What was decoded is kept, also if the block raises or the process is killed: the next pass goes
    on from there. A second process with the same files waits until the end of the block and uses
    the results of the first. A killed process leaves a hidden folder, which the next pass that
    fills the cache removes.

    Args:
        cache_dir: Folder of the cache and of the `FileIndex`; None = decode only.
        formats: Image formats whose images are written into the cache.
        workers: Number of threads that decode, or of processes if there are many files; None = one
            per core.
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        formats: Collection[ImageFormat] = (),
        workers: int | None = None,
    ) -> None:
        assert cache_dir is not None or not formats
        self._cache_dir = cache_dir
        self._formats = list(dict.fromkeys(CanvasFormat.of(form) for form in formats))
        self._workers = workers or core_count()
        self._valid: _Valid | None = None  # the table, if all of its files are valid
        self._locked = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DecodePass:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

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
            complete: Whether the table is valid so far; otherwise the cache is not filled.
            progress: Function called with (done, total) while files are read; None = a progress bar
                on a terminal.

        Raises:
            InputError: The disk is too small for the cache.
            RunFailedError: The cache cannot be written.
        """
        table = FileTable(images, maps)
        formats = self._formats if complete else []
        index = FileIndex(self._index)
        files = index.look_up(table.paths)
        missing = self._missing(formats, table, files)
        if missing is not None or not table.is_decoded(files).all():
            self._wait_for_others(table, needed=missing is not None)
            index.refresh(files)
            missing = self._missing(formats, table, files)
        unread = ~table.is_decoded(files)
        if missing is not None:
            unread |= missing.files
        found = WrongFiles()
        if unread.any():
            with self._filling(formats, table, missing) as fill:
                reading = FileReading(table, files, index, fill, self._workers)
                found = reading.run(np.flatnonzero(unread), progress)
        decoded = table.decoded(files, found)
        if complete and not found and (contents := table.contents(files)) is not None:
            self._valid = _Valid(contents, *table.states(files), decoded.image_size)
            self._are_there(contents)  # stores the views
        return decoded

    @property
    def contents(self) -> FileContents | None:
        """Content hashes of the decoded table; None if not all of its files were found valid."""
        return None if self._valid is None else self._valid.contents

    @property
    def image_sizes(self) -> NDArray[np.int32] | None:
        """(n, 2) width and height of the images of the decoded table; None likewise."""
        return None if self._valid is None else self._valid.image_sizes

    def find(self, key: TableKey) -> CheckedTable | None:
        """Table that was found valid before, with its files unchanged and all images cached."""
        if self._cache_dir is None:
            return None
        found = CheckedTables(self._cache_dir / TABLES).find(key)
        return found if found is not None and self._are_there(found.contents) else None

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

    def _are_there(self, contents: FileContents) -> bool:
        """Whether all images and maps are in the cache in all formats."""
        if self._cache_dir is None:
            return not self._formats
        views = [open_view(self._cache_dir, form, contents) for form in self._formats]
        return None not in views

    def _missing(
        self, formats: Sequence[CanvasFormat], table: FileTable, files: KnownFiles
    ) -> Missing | None:
        """What the cache lacks; None = nothing."""
        if self._cache_dir is None or not formats:
            return None
        contents = table.contents(files)
        if contents is not None and self._are_there(contents):
            return None
        found = Missing.of(self._cache_dir, formats, table, files)
        return found if found.files.any() else None

    def _wait_for_others(self, table: FileTable, *, needed: bool) -> None:
        """Acquire the lock of this table; a folder without write access is an error only if the
        cache must be filled."""
        if self._cache_dir is None:
            return
        try:
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            lock = locked(fill_lock(self._cache_dir, table.key))
            self._locked = self._stack.enter_context(lock)
            self._stack.enter_context(cache_in_use(self._cache_dir))
        except OSError as error:
            if needed:
                raise self._failed(error) from error

    @contextlib.contextmanager
    def _filling(
        self, formats: Sequence[CanvasFormat], table: FileTable, missing: Missing | None
    ) -> Iterator[CacheFill | None]:
        """Context in which the cache is filled; write errors are one line with its folder."""
        if self._cache_dir is None or missing is None:
            yield None
            return
        try:
            fill = CacheFill(self._cache_dir, table.key, formats, missing, locked=self._locked)
            try:
                yield fill
            except BaseException:
                with contextlib.suppress(OSError):
                    fill.finish()
                raise
            else:
                fill.finish()
            finally:
                fill.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RunFailedError:
        return RunFailedError(f"image cache {self._cache_dir}: {error.strerror or error}")


@dataclass(frozen=True)
class _Valid:
    """Table with valid files: content hashes, states of images and maps, and sizes by row."""

    contents: FileContents
    images: NDArray[np.int64]
    maps: NDArray[np.int64]
    image_sizes: NDArray[np.int32]
