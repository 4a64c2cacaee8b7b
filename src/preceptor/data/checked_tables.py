"""Tables of manifests whose rows and files were all found valid, for the next reading.

A table is used again if the manifest has the same bytes and each of its files the same state; no
file is opened then. It is an uncompressed Arrow file, which is memory-mapped: all processes that
use it share one copy of its columns, and those that none of them reads stay on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from preceptor.data.file_contents import FileContents, arrow_hashes
from preceptor.data.file_index import DECODER, file_states
from preceptor.data.locations.location import not_plain
from preceptor.runtime.checksums import DIGEST_BYTES
from preceptor.runtime.replace_file import replacing

# Increased if tables that were valid would be rejected or read differently.
_FORMAT = 3
_METADATA = b"preceptor"
_FILES = ("path", "saliency")
_NUMBERS = 3  # of a state
_KINDS = ("str", "bool", "float64", "int64")
# Rows whose files are asked for at a time: the paths of a million rows take 110 MB.
_PART = 65_536


@dataclass(frozen=True)
class TableKey:
    """What a valid table depends on, apart from the files of its rows.

    Args:
        place: Absolute path of the manifest.
        manifest: Hash of its bytes.
        need: Required kinds of split.
        classes: Allowed labels; None = any.
    """

    place: Path
    manifest: str
    need: Collection[str]
    classes: Collection[str] | None

    @staticmethod
    def of(place: Path, need: Collection[str], classes: Collection[str] | None) -> TableKey | None:
        """Key of a manifest file; None if it cannot be read."""
        if not place.is_file():  # a device never ends
            return None
        try:
            with place.open("rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b").hexdigest()
        except OSError:
            return None
        return TableKey(place, digest, need, classes)

    @property
    def name(self) -> str:
        """Name of the table's file; a changed manifest replaces its table."""
        return f"{_digest([str(self.place), *self._settings])}.arrow"

    @property
    def content(self) -> str:
        """Hash of all parts."""
        return _digest([self.manifest, _FORMAT, DECODER, str(self.place), *self._settings])

    @property
    def _settings(self) -> list[object]:
        return [sorted(self.need), None if self.classes is None else list(self.classes)]


@dataclass(frozen=True)
class CheckedTable:
    """Valid table.

    Args:
        table: Table of a manifest, see `Manifest.table`.
        contents: Content hashes of its images and maps.
    """

    table: pd.DataFrame
    contents: FileContents


class CheckedTables:
    """Folder of valid tables.

    Args:
        folder: Folder; without write access nothing is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: TableKey) -> CheckedTable | None:
        """Table of this key, if all of its files are in the state in which they were checked."""
        return self._open(key, unchanged=True)

    def store(
        self,
        key: TableKey,
        checked: CheckedTable,
        images: NDArray[np.int64],
        maps: NDArray[np.int64],
    ) -> CheckedTable:
        """Store a table.

        Args:
            key: What it depends on.
            checked: Valid table.
            images: (n, 3) states of the images from before they were read.
            maps: (n, 3) states of the maps; 0 for rows without one.

        Returns:
            The stored table, memory-mapped; the given one if it cannot be stored.
        """
        kinds = {str(column): str(kind) for column, kind in checked.table.dtypes.items()}
        known = set(kinds.values()) <= set(_KINDS) and len(kinds) == checked.table.shape[1]
        own = {name for column in _FILES for name in (_contents_column(column), *_states(column))}
        if not known or own & set(kinds):
            return checked
        columns = {name: _arrow(checked.table[name]) for name in kinds}
        hashes = (checked.contents.images, checked.contents.maps)
        for column, states, contents in zip(_FILES, (images, maps), hashes, strict=True):
            columns |= dict(zip(_states(column), map(pa.array, states.T), strict=True))
            columns[_contents_column(column)] = arrow_hashes(contents)
        about = {"key": key.content, "contents": checked.contents.digest, "kinds": kinds}
        table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(about)})
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with (
                replacing(self._folder / key.name) as partial,
                pa.OSFile(str(partial), "wb") as file,
                pa.ipc.new_file(file, table.schema) as writer,
            ):
                writer.write_table(table)  # one piece, whose columns are used where they lie
            return self._open(key, unchanged=False) or checked
        return checked

    def _open(self, key: TableKey, *, unchanged: bool) -> CheckedTable | None:
        """Stored table of a key; with `unchanged`, only if its files are as they were."""
        try:
            stored = pa.ipc.open_file(pa.memory_map(str(self._folder / key.name))).read_all()
            about = json.loads((stored.schema.metadata or {}).get(_METADATA, b"{}"))
            if about.get("key") != key.content:
                return None
            stored.validate(full=True)  # a damaged table would end the process
            if unchanged and not all(_is_unchanged(stored, column) for column in _FILES):
                return None
            kinds = about["kinds"]
            table = stored.select(list(kinds)).to_pandas(split_blocks=True).astype(kinds)
            images, maps = (_hashes(stored[_contents_column(column)]) for column in _FILES)
            return CheckedTable(table, FileContents(images, maps, about["contents"]))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None  # no table, or a damaged one: the manifest is checked again


def _arrow(column: pd.Series) -> pa.Array:
    """Column in one piece; NaN is kept, since columns with null are copied when they are read."""
    if column.dtype != "str":
        return pa.array(column.to_numpy(), from_pandas=False)
    text = pa.array(column.array, pa.large_string())
    return text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text


def _hashes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """(n, 16) hashes of a column, where they lie."""
    (piece,) = column.chunks
    return np.frombuffer(piece.buffers()[1], np.uint8).reshape(-1, DIGEST_BYTES)


def _is_unchanged(stored: pa.Table, column: str) -> bool:
    """Whether the files of a column are in the states that are stored with it."""
    known = [stored[name] for name in _states(column)]
    special: list[str] = []  # a folder or container of these is asked for once
    there: list[int] = []
    for start in range(0, len(stored), _PART):
        paths = stored[column].slice(start, _PART).to_pylist()
        apart = set(not_plain(paths))
        plain = [at for at, path in enumerate(paths) if path and at not in apart]
        special += [paths[at] for at in sorted(apart)]
        there += [start + at for at in sorted(apart)]
        states, errors = file_states([paths[at] for at in plain])
        before = np.stack([one.slice(start, _PART).to_numpy() for one in known], axis=1)
        if errors or (states != before[plain]).any():
            return False
    if not special:
        return True
    states, errors = file_states(special)
    before = np.stack([one.take(pa.array(there)).to_numpy() for one in known], axis=1)
    return not errors and bool((states == before).all())


def _states(column: str) -> list[str]:
    return [f"state of {column}: {number}" for number in range(_NUMBERS)]


def _contents_column(column: str) -> str:
    return f"content of {column}"


def _digest(parts: list[object]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
