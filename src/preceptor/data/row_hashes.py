"""Content hashes of manifest rows and of other files that runs use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.file_contents import written
from preceptor.data.fingerprints import contents_of
from preceptor.data.manifest import Manifest
from preceptor.runtime.checksums import file_digest
from preceptor.runtime.result_folder import digest

# Rows whose text is made at a time: that of a million rows takes 240 MB.
_PART = 16_384
# The group is part of what scores.parquet says, and intervals resample groups.
_COLUMNS = ("label", "split", "source", "group", "sample_weight")


class RowHashes:
    """Content hashes of manifest rows, computed once for all runs of a study.

    Args:
        manifest: Manifest.
        cache: Folder with cached content hashes.
    """

    def __init__(self, manifest: Manifest, cache: Path | None) -> None:
        self._table, self._contents = manifest.table, contents_of(manifest, cache)
        self.map_weight = manifest.table["map_weight"].to_numpy(np.float64)
        self.has_map = manifest.map_mask
        self._annotated = manifest.annotated_mask
        self._known: dict[str, str] = {}

    @property
    def images(self) -> NDArray[np.uint8]:
        """(n, 16) content hash of the image of each row."""
        return self._contents.images

    def of(
        self,
        rows: NDArray[np.int64],
        mapped: NDArray[np.bool_] | None = None,
        *,
        weighted: bool = False,
    ) -> str:
        """Hash of manifest rows.

        Args:
            rows: (n,) row numbers.
            mapped: (n,) whether to include the content of the row's human map; None = no maps.
            weighted: Whether to include map weights, as in all runs with guidance.
        """
        key = digest(
            [_bytes_digest(rows), None if mapped is None else _bytes_digest(mapped), weighted]
        )
        if (
            key not in self._known
        ):  # a study has thousands of runs on few different selections of rows
            state = hashlib.blake2b(digest_size=10)
            for start in range(0, len(rows), _PART):
                part = slice(start, start + _PART)
                with_map = np.zeros(len(rows[part]), bool) if mapped is None else mapped[part]
                state.update(b"".join(self._lines(rows[part], with_map, weighted=weighted)))
            self._known[key] = state.hexdigest()
        return self._known[key]

    @cached_property
    def whole(self) -> str:
        """Hash of the whole table, which tells whether another process has read the same one."""
        state = hashlib.blake2b(self._contents.digest.encode(), digest_size=16)
        for column in ("name", *_COLUMNS):
            for start in range(0, len(self._table), _PART):
                part = self._table[column].iloc[start : start + _PART].tolist()
                state.update(json.dumps(part, default=float).encode())
        for values in (self.map_weight, self.has_map, self._annotated):
            state.update(values.tobytes())
        return state.hexdigest()

    def _lines(
        self, rows: NDArray[np.int64], mapped: NDArray[np.bool_], *, weighted: bool
    ) -> Iterator[bytes]:
        """What is hashed of each row. Values are listed as JSON, so that no two rows can be
        written the same."""
        table = self._table
        images = zip(
            table["name"].iloc[rows].tolist(),
            written(self._contents.images[rows]),
            *(table[column].iloc[rows].tolist() for column in _COLUMNS),
            strict=True,
        )
        maps = written(self._contents.maps[rows])
        for row, image, content, has_map in zip(rows, images, maps, mapped.tolist(), strict=True):
            yield json.dumps(image, ensure_ascii=False, default=float).encode()
            if has_map:
                yield content.encode()
            if weighted:
                yield self.map_weight[row].tobytes()
            yield b"\n"


class FileHashes:
    """Content hashes of files and folders, each read once for all runs of a study."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def file(self, path: Path) -> str:
        """Hash of the content of a file."""
        if path not in self._known:
            self._known[path] = file_digest(path)
        return self._known[path]

    def folder(self, path: Path) -> str:
        """Hash of the names and contents of all files in a folder."""
        if path not in self._known:
            files = sorted(file for file in path.rglob("*") if file.is_file())
            self._known[path] = digest(
                [[file.relative_to(path).as_posix(), file_digest(file)] for file in files]
            )
        return self._known[path]


def _bytes_digest(values: NDArray[Any]) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()
