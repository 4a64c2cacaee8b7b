"""Index of content hashes and pixel sizes of files, by location and state.

The state of a local file is its size and its modification times; that of a remote file, or of a
member of a tar or Parquet file, see `locations.states`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preceptor.data.locations.location import not_plain
from preceptor.data.locations.states import states_of
from preceptor.runtime.checksums import DIGEST_BYTES
from preceptor.runtime.replace_file import replacing

# Increased if files that were accepted would be rejected; all files are then decoded again once.
DECODER = 1
_ROW_GROUP = 65_536  # rows that are held in memory a second time while the index is written
_BATCH = 64  # files per task: submitting single files costs more than reading their state
# Seconds for the state of a file, from which on several threads ask, and the number of files that
# shows it: on a local disk, threads only take turns.
_REMOTE = 200e-6
_SAMPLE = 256
# ctime is included, since programs may restore the modification time.
_STATE = ["size", "mtime_ns", "ctime_ns"]
_FIELDS = ["path", *_STATE, "digest", "width", "height", "as_image", "as_map"]
_TEXTS = ("path", "digest")
_SCHEMA = pa.schema([(name, pa.string() if name in _TEXTS else pa.int64()) for name in _FIELDS])


@dataclass
class KnownFiles:
    """Known properties of files in their current state.

    Args:
        paths: (n,) absolute paths or other locations.
        state: (n, 3) int64: size, and two numbers that change with the content: mtime_ns and
            ctime_ns of local files.
        digest: (n,) content hash in hex; "" where unknown.
        size: (n, 2) int32 width and height of the upright image; 0 where unknown.
        as_image: (n,) bool: decoded in full as an image, without an error.
        as_map: (n,) bool: decoded in full as a map, without an error.
        errors: Errors of files whose state cannot be read, by position.
    """

    paths: Sequence[str]
    state: NDArray[np.int64]
    digest: NDArray[np.object_]
    size: NDArray[np.int32]
    as_image: NDArray[np.bool_]
    as_map: NDArray[np.bool_]
    errors: dict[int, OSError]


class FileIndex:
    """Persistent index of properties of files.

    Args:
        file: Parquet file of the index. A missing or damaged one is created again; without write
            access, or with None, nothing is stored.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def look_up(self, paths: Sequence[str]) -> KnownFiles:
        """Known properties of unchanged files; reads the current state of all files."""
        state, errors = file_states(paths)
        count = len(paths)
        files = KnownFiles(
            paths,
            state,
            np.full(count, "", object),
            np.zeros((count, 2), np.int32),
            np.zeros(count, bool),
            np.zeros(count, bool),
            errors,
        )
        known = _read(self._file)
        place = known.index.get_indexer(pd.Index(paths, dtype=object))
        at = np.flatnonzero(place >= 0)
        same = (known[_STATE].to_numpy(np.int64)[place[at]] == state[at]).all(1)
        at = at[same & ~np.isin(at, list(errors))]
        found = known.iloc[place[at]]
        files.digest[at] = found["digest"].to_numpy(object)
        files.size[at] = found[["width", "height"]].to_numpy(np.int32)
        files.as_image[at] = found["as_image"].to_numpy(np.int64) == DECODER
        files.as_map[at] = found["as_map"].to_numpy(np.int64) == DECODER
        return files

    def remember(self, files: KnownFiles, which: NDArray[np.bool_]) -> None:
        """Store known properties of files.

        Args:
            files: Files, with their states from before they were read.
            which: (n,) bool, files with new properties.
        """
        rows = np.flatnonzero(which)
        if self._file is None or not len(rows):
            return
        columns = {name: files.state[rows, place] for place, name in enumerate(_STATE)}
        new = pd.DataFrame(
            columns
            | {
                "digest": files.digest[rows],
                "width": files.size[rows, 0],
                "height": files.size[rows, 1],
                "as_image": np.where(files.as_image[rows], DECODER, 0),
                "as_map": np.where(files.as_map[rows], DECODER, 0),
            },
            index=pd.Index(np.array(files.paths, object)[rows], name="path"),
        )
        latest = _read(self._file)  # another process may have written since
        others = latest[~latest.index.isin(new.index)]
        del latest
        every = (pd.concat([others, new]) if len(others) else new).reset_index()[_FIELDS]
        del others, new
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as partial, pq.ParquetWriter(partial, _SCHEMA) as writer:
                for start in range(0, len(every), _ROW_GROUP):
                    part = every.iloc[start : start + _ROW_GROUP]
                    writer.write_table(pa.Table.from_pandas(part, _SCHEMA, preserve_index=False))


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


def _read(file: Path | None) -> pd.DataFrame:
    empty = pd.DataFrame(columns=_FIELDS).set_index("path")
    if file is None or not file.is_file():
        return empty
    try:
        frame = pd.read_parquet(file, columns=_FIELDS).set_index("path")
        frame.index = frame.index.astype(object)
        for name in (*_STATE, "width", "height", "as_image", "as_map"):
            frame[name] = frame[name].astype(np.int64)
        frame["digest"] = frame["digest"].astype(object)
        whole = frame["digest"].str.len().eq(2 * DIGEST_BYTES).all() and frame.index.is_unique
        return frame if whole else empty
    except Exception:  # any error of a damaged file is repaired by reading all files again
        return empty
