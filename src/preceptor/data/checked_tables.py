"""Tables of manifests whose rows and files were all found valid, for the next reading.

A table is used again if the manifest has the same bytes and each of its files the same state; no
file is opened then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preceptor.data.file_index import DECODER, file_states
from preceptor.runtime.replace_file import replacing

# Increased if tables that were valid would be rejected or read differently.
_FORMAT = 1
_METADATA = b"preceptor"
_FILES = ("path", "saliency")
_NUMBERS = 3  # of a state
_KINDS = ("str", "bool", "float64", "int64")


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
        return f"{_digest([str(self.place), *self._settings])}.parquet"

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
        contents: Hash of the contents of its images and maps.
    """

    table: pd.DataFrame
    contents: str


class CheckedTables:
    """Folder of valid tables.

    Args:
        folder: Folder; without write access nothing is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: TableKey) -> CheckedTable | None:
        """Table of this key, if all of its files are in the state in which they were checked."""
        try:
            stored = pq.read_table(self._folder / key.name)
            about = json.loads((stored.schema.metadata or {}).get(_METADATA, b"{}"))
            if about.get("key") != key.content:
                return None
            table = stored.select(about["columns"]).to_pandas().astype(about["kinds"])
            for column in _FILES:
                known = np.stack([stored[name] for name in _state_columns(column)], axis=1)
                if not _is_unchanged(table[column].tolist(), known):
                    return None
            return CheckedTable(table, about["contents"])
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None  # no table, or a damaged one: the manifest is checked again

    def store(
        self,
        key: TableKey,
        checked: CheckedTable,
        images: NDArray[np.int64],
        maps: NDArray[np.int64],
    ) -> None:
        """Store a table.

        Args:
            key: What it depends on.
            checked: Valid table.
            images: (n, 3) states of the images from before they were read.
            maps: (n, 3) states of the maps; 0 for rows without one.
        """
        kinds = {str(column): str(kind) for column, kind in checked.table.dtypes.items()}
        known = set(kinds.values()) <= set(_KINDS) and len(kinds) == checked.table.shape[1]
        if not known or any(name in kinds for column in _FILES for name in _state_columns(column)):
            return
        table = pa.Table.from_pandas(checked.table, preserve_index=False)
        for column, states in zip(_FILES, (images, maps), strict=True):
            for number, name in enumerate(_state_columns(column)):
                table = table.append_column(name, pa.array(states[:, number]))
        about = {
            "key": key.content,
            "contents": checked.contents,
            "columns": list(kinds),
            "kinds": kinds,
        }
        metadata = {**(table.schema.metadata or {}), _METADATA: json.dumps(about)}
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._folder / key.name) as partial:
                pq.write_table(table.replace_schema_metadata(metadata), partial)


def _is_unchanged(paths: Sequence[str], known: NDArray[np.int64]) -> bool:
    there = [at for at, path in enumerate(paths) if path]
    states, errors = file_states([paths[at] for at in there])
    return not errors and bool((states == known[there]).all())


def _state_columns(column: str) -> list[str]:
    return [f"state of {column}: {number}" for number in range(_NUMBERS)]


def _digest(parts: list[object]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
