"""Content hashes of the images and maps of a manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from preceptor.data.file_contents import FileContents, written
from preceptor.data.file_index import FileIndex, KnownFiles
from preceptor.data.file_table import FileTable
from preceptor.data.locations.read import location_digest, reading_threads
from preceptor.data.manifest import Manifest
from preceptor.errors import Problem, ProblemsError


def fingerprints(
    manifest: Manifest,
    columns: Sequence[str] = ("path", "saliency"),
    cache: Path | None = None,
) -> pd.DataFrame:
    """Content hash of every file of a manifest.

    Args:
        manifest: Manifest.
        columns: Columns of files to hash.
        cache: Folder of a `FileIndex`; unchanged files in it are not read again.

    Returns:
        One row per image and one column for each of `columns`: BLAKE2b hash with 16 bytes in hex,
        or "" for rows without a file.

    Raises:
        ProblemsError: Files are missing or cannot be read; lists all of them.
    """
    table = manifest.table
    paths = [path for path in pd.unique(pd.concat([table[c] for c in columns])) if path]
    files = _hashed(paths, manifest, cache)
    digests = dict(zip(paths, written(files.digest), strict=True)) | {"": ""}
    return pd.DataFrame({c: table[c].map(digests).astype("str") for c in columns})


def contents_of(manifest: Manifest, cache: Path | None = None) -> FileContents:
    """Content hashes of a manifest: those it was read with, or those of its files now.

    Args:
        manifest: Manifest.
        cache: Folder of a `FileIndex`; unchanged files in it are not read again.

    Raises:
        ProblemsError: Files are missing or cannot be read; lists all of them.
    """
    if manifest.contents is not None:
        return manifest.contents
    table = FileTable(manifest.table["path"].tolist(), manifest.table["saliency"].tolist())
    found = table.contents(_hashed(table.paths, manifest, cache))
    assert found is not None
    return found


def _hashed(paths: Sequence[str], manifest: Manifest, cache: Path | None) -> KnownFiles:
    """Files of a manifest with their content hashes, which are stored in the index."""
    index = FileIndex(cache)
    files = index.look_up(paths)
    fresh = ~files.known
    errors = dict(files.errors)

    def fill(position: int) -> None:
        try:
            digest = bytes.fromhex(location_digest(paths[position]))
        except OSError as error:
            errors[position] = error
        else:
            files.digest[position] = np.frombuffer(digest, np.uint8)
            files.known[position] = True

    unread = [at for at in np.flatnonzero(fresh).tolist() if at not in errors]
    threads = reading_threads(paths, min(32, 2 * (os.cpu_count() or 1)))
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, unread):
            pass
    if errors:
        problems = [
            Problem(paths[at], error.strerror or str(error), "restore the file or remove its row")
            for at, error in sorted(errors.items())
        ]
        raise ProblemsError(str(manifest.source or manifest.root), problems)
    index.remember(files, fresh)
    return files
