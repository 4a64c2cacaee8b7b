"""Index of content hashes and pixel sizes of files, by location and state.

The state of a local file is its size and its modification times; that of a remote file, or of a
member of a tar or Parquet file, see `locations.states`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preceptor.data.file_contents import arrow_hashes
from preceptor.data.index_segments import GROUP, SCHEMA, IndexSegments
from preceptor.data.locations.location import not_plain
from preceptor.data.locations.states import states_of
from preceptor.runtime.checksums import DIGEST_BYTES

# Increased if files that were accepted would be rejected; all files are then decoded again once.
DECODER = 1
_BATCH = 64  # files per task: submitting single files costs more than reading their state
# Seconds for the state of a file, from which on several threads ask, and the number of files that
# shows it: on a local disk, threads only take turns.
_REMOTE = 200e-6
_SAMPLE = 256
# ctime is included, since programs may restore the modification time.
_STATE = ("size", "mtime_ns", "ctime_ns")
# Listings of the segments in a look-up: another process merges them while they are read.
_LISTINGS = 8


@dataclass
class KnownFiles:
    """Known properties of files in their current state.

    Args:
        paths: (n,) absolute paths or other locations.
        state: (n, 3) int64: size, and two numbers that change with the content: mtime_ns and
            ctime_ns of local files.
        digest: (n, 16) uint8, content hash.
        known: (n,) bool: the content hash is known.
        size: (n, 2) int32 width and height of the upright image; 0 where unknown.
        as_image: (n,) bool: decoded in full as an image, without an error.
        as_map: (n,) bool: decoded in full as a map, without an error.
        errors: Errors of files whose state cannot be read, by position.
    """

    paths: Sequence[str]
    state: NDArray[np.int64]
    digest: NDArray[np.uint8]
    known: NDArray[np.bool_]
    size: NDArray[np.int32]
    as_image: NDArray[np.bool_]
    as_map: NDArray[np.bool_]
    errors: dict[int, OSError]


class FileIndex:
    """Persistent index of properties of files.

    Args:
        folder: Folder of the index, see `IndexSegments`. Damaged parts are left out, so that their
            files are read again; without write access, or with None, nothing is stored.
    """

    def __init__(self, folder: Path | None) -> None:
        self._segments = None if folder is None else IndexSegments(folder)
        self._seen: list[str] = []

    def look_up(self, paths: Sequence[str]) -> KnownFiles:
        """Known properties of unchanged files; reads the current state of all files."""
        state, errors = file_states(paths)
        count = len(paths)
        files = KnownFiles(
            paths,
            state,
            np.zeros((count, DIGEST_BYTES), np.uint8),
            np.zeros(count, bool),
            np.zeros((count, 2), np.int32),
            np.zeros(count, bool),
            np.zeros(count, bool),
            errors,
        )
        self._find(files)
        return files

    def refresh(self, files: KnownFiles) -> None:
        """Add what other processes have stored since the look-up, of files in the state of then."""
        if self._segments is not None and self._segments.names() != self._seen:
            self._find(files)

    def remember(self, files: KnownFiles, which: NDArray[np.bool_]) -> None:
        """Store known properties of files.

        Args:
            files: Files, with their states from before they were read.
            which: (n,) bool, files with new properties, whose content hash is known.
        """
        rows = np.flatnonzero(which)
        if self._segments is None or not len(rows):
            return
        with contextlib.suppress(OSError):
            self._segments.add(_entries(files, rows))

    def _find(self, files: KnownFiles) -> None:
        if self._segments is None:
            return
        for _ in range(_LISTINGS):
            with contextlib.suppress(FileNotFoundError):
                self._seen = self._segments.names()
                _fill(files, self._segments, self._seen)
                return


def _fill(files: KnownFiles, segments: IndexSegments, names: Sequence[str]) -> None:
    """Fill in the newest entry of each file in its state.

    Older entries count, too: those with newer times may be of a machine whose clock is ahead.
    """
    if not names:
        return
    left = np.arange(len(files.paths))
    paths = pa.array(files.paths, pa.large_string())
    if files.errors:
        left = np.setdiff1d(left, list(files.errors))
        paths = paths.take(pa.array(left))
    for name in names:
        for group in segments.groups(name):
            if not len(left):
                return
            place = pc.index_in(paths, value_set=group["path"])
            is_there = place.is_valid().to_numpy(zero_copy_only=False)
            at, entry = left[is_there], place.drop_null().to_numpy()
            state = np.stack([group[column].to_numpy() for column in _STATE], axis=1)
            same = (state[entry] == files.state[at]).all(1)
            at, entry = at[same], entry[same]
            is_there[is_there] = same
            left, paths = left[~is_there], paths.filter(pa.array(~is_there))
            files.known[at] = True
            files.digest[at] = _hashes(group["digest"])[entry]
            for column, name_of in enumerate(("width", "height")):
                files.size[at, column] = group[name_of].to_numpy()[entry]
            files.as_image[at] = group["as_image"].to_numpy()[entry] == DECODER
            files.as_map[at] = group["as_map"].to_numpy()[entry] == DECODER


def _entries(files: KnownFiles, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Entries of a segment, in groups."""
    for start in range(0, len(rows), GROUP):
        part = rows[start : start + GROUP]
        columns = {
            "path": [files.paths[row] for row in part.tolist()],
            **{name: files.state[part, place] for place, name in enumerate(_STATE)},
            "digest": arrow_hashes(files.digest[part]),
            "width": files.size[part, 0],
            "height": files.size[part, 1],
            "as_image": np.where(files.as_image[part], DECODER, 0),
            "as_map": np.where(files.as_map[part], DECODER, 0),
        }
        yield pa.table(columns, schema=SCHEMA)


def _hashes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """(n, 16) hashes of a column."""
    data = column.combine_chunks()
    found = np.frombuffer(data.buffers()[1], np.uint8).reshape(-1, DIGEST_BYTES)
    return found[data.offset : data.offset + len(data)]


def file_states(paths: Sequence[str]) -> tuple[NDArray[np.int64], dict[int, OSError]]:
    """States of files or other locations: (n, 3), and the errors by position."""
    state = np.zeros((len(paths), 3), np.int64)
    errors: dict[int, OSError] = {}
    special = not_plain(paths)
    for position, known in zip(special, states_of(paths[at] for at in special), strict=True):
        if isinstance(known, OSError):
            errors[position] = known
        else:
            state[position] = known
    skipped = frozenset(special)
    plain = [position for position in range(len(paths)) if position not in skipped]

    def ask(start: int) -> None:
        for position in plain[start : start + _BATCH]:
            try:
                found = os.stat(paths[position])  # noqa: PTH116 (a million Paths are dear)
            except OSError as error:
                errors[position] = error
            else:
                state[position] = found.st_size, found.st_mtime_ns, found.st_ctime_ns

    starts = iter(range(0, len(plain), _BATCH))
    began = time.perf_counter()
    for start in starts:
        ask(start)
        if time.perf_counter() - began > (start + _SAMPLE) * _REMOTE:
            break
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        for _ in pool.map(ask, starts):
            pass
    return state, errors
