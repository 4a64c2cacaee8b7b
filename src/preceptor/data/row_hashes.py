"""Content hashes of manifest rows and of other files that runs use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.fingerprints import fingerprints
from preceptor.data.manifest import Manifest
from preceptor.runtime.checksums import file_digest
from preceptor.runtime.result_folder import digest


class RowHashes:
    """Content hashes of manifest rows, computed once for all runs of a study.

    Args:
        manifest: Manifest.
        cache: File with cached content hashes.
    """

    def __init__(self, manifest: Manifest, cache: Path | None) -> None:
        hashes = fingerprints(manifest, cache=cache)
        table = manifest.table
        # The group is part of what scores.parquet says, and intervals resample groups. Values are
        # listed as JSON, so that no two rows can be written the same.
        self.image = [
            json.dumps(parts, ensure_ascii=False, default=float)
            for parts in zip(
                table["name"],
                hashes["path"],
                table["label"],
                table["split"],
                table["source"],
                table["group"],
                table["sample_weight"],
                strict=True,
            )
        ]
        self.map = list(hashes["saliency"])
        self.map_weight = table["map_weight"].to_numpy(np.float64)
        self.has_map = (table["saliency"] != "").to_numpy()
        self._known: dict[str, str] = {}

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
            for position, row in enumerate(rows):
                state.update(self.image[row].encode())
                if mapped is not None and mapped[position]:
                    state.update(self.map[row].encode())
                if weighted:
                    state.update(self.map_weight[row].tobytes())
                state.update(b"\n")
            self._known[key] = state.hexdigest()
        return self._known[key]


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
