"""Segments of the index of files: immutable Parquet files; the newest entry of a path counts.

A process adds a segment with its new entries only, so that processes that finish at the same time
lose nothing. When there are many, one process merges them under a lock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preceptor.runtime.checksums import DIGEST_BYTES
from preceptor.runtime.file_lock import locked
from preceptor.runtime.replace_file import replacing

SCHEMA = pa.schema(
    [
        ("path", pa.large_string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("digest", pa.binary(DIGEST_BYTES)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("as_image", pa.int32()),
        ("as_map", pa.int32()),
    ]
)
"""Columns of a segment, see `FileIndex`."""
GROUP = 262_144
"""Entries that are in memory at a time."""
# Each segment is opened by every look-up; a merge writes all entries, a second per million.
_MOST = 16
_SUFFIX = ".parquet"
_TIME_DIGITS = 20


class IndexSegments:
    """Folder of segments.

    Args:
        folder: Folder; created by the first segment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Names of all segments, newest first."""
        found = (file.name for file in self._folder.glob(f"[0-9]*{_SUFFIX}"))
        return sorted(found, reverse=True)

    def groups(self, name: str) -> Iterator[pa.Table]:
        """Entries of a segment in groups, up to the first damaged one.

        Raises:
            FileNotFoundError: Another process has merged it.
        """
        try:
            with pq.ParquetFile(self._folder / name, page_checksum_verification=True) as file:
                for number in range(file.num_row_groups):
                    group = file.read_row_group(number, use_threads=False)
                    if not group.schema.equals(SCHEMA) or any(
                        column.null_count for column in group.columns
                    ):
                        return
                    yield group.combine_chunks()
        except FileNotFoundError:
            raise
        except (OSError, ValueError, pa.ArrowException):
            return  # damaged: its files are read again

    def add(self, groups: Iterable[pa.Table]) -> None:
        """Write a segment with entries of distinct paths, and merge the segments if they are many.

        Raises:
            OSError: The folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write(self._now(), groups)
        if len(self.names()) > _MOST:
            self._merge()

    def _now(self) -> str:
        """Time of a new segment, later than that of each other one, also after the clock was set
        back: the newest entry of a path counts."""
        times = (name[:_TIME_DIGITS] for name in self.names())
        newest = max((int(one) for one in times if one.isdecimal()), default=0)
        return f"{max(time.time_ns(), newest + 1):0{_TIME_DIGITS}d}"

    def _merge(self) -> None:
        with locked(self._folder / "merge.lock"):
            names = self.names()
            if len(names) <= _MOST:  # another process has merged them
                return
            # As old as the newest of them: what other processes add meanwhile is newer.
            self._write(names[0][:_TIME_DIGITS], self._latest(names))
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

    def _latest(self, names: list[str]) -> Iterator[pa.Table]:
        """Newest entry of each path in these segments."""
        newer: list[pa.Array] = []
        for name in names:
            own: list[pa.Array] = []
            for group in self.groups(name):
                paths = group["path"]
                own += paths.chunks
                if newer:
                    known = pc.is_in(paths, value_set=pa.chunked_array(newer))
                    group = group.filter(pc.invert(known))
                yield group
            newer += own

    def _write(self, when: str, groups: Iterable[pa.Table]) -> None:
        file = self._folder / f"{when}-{uuid.uuid4().hex}{_SUFFIX}"
        with (
            replacing(file) as partial,
            pq.ParquetWriter(
                partial,
                SCHEMA,
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            ) as writer,
        ):
            for group in groups:
                writer.write_table(group)
