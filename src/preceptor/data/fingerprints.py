"""Content hashes of images and maps, remembered by path, size and times of change."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from preceptor.data.manifest import Manifest
from preceptor.errors import Problem, ProblemsError
from preceptor.runtime.replace_file import replacing

_DIGEST_BYTES = 16
_BATCH = 64  # files a task: handing over one at a time costs more than a look into the cache
_FIELDS = ["path", "size", "mtime_ns", "ctime_ns", "digest"]
_Key = tuple[str, int, int, int]


def fingerprints(
    manifest: Manifest,
    columns: Sequence[str] = ("path", "saliency"),
    cache: Path | None = None,
) -> pd.DataFrame:
    """The content hash of every file that a manifest names.

    Args:
        manifest: The images.
        columns: The columns of files to hash.
        cache: A Parquet file that remembers hashes by absolute path, size and times of change. A
            missing or damaged one is made anew; one that cannot be written is done without.

    Returns:
        A row an image and a column for each of `columns`: BLAKE2b of 16 bytes in hex, or "" where
        the row has no file.

    Raises:
        ProblemsError: Files that are gone or cannot be read, all at once.
    """
    table = manifest.table
    files = [path for path in pd.unique(pd.concat([table[c] for c in columns])) if path]
    known = _read_cache(cache)

    def fingerprint(path: str) -> tuple[_Key, str] | OSError:
        try:
            state = os.stat(path)  # noqa: PTH116 (a Path for each of a million files is dear)
            # The time of change as well: programs may set the time of modification to what it was.
            key = (path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            return key, known.get(key) or _digest(path)
        except OSError as error:
            return error

    def fingerprint_all(batch: list[str]) -> list[tuple[_Key, str] | OSError]:
        return [fingerprint(path) for path in batch]

    digests: dict[str, str] = {"": ""}
    fresh: dict[_Key, str] = {}
    problems = []
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]
        for batch, results in zip(batches, pool.map(fingerprint_all, batches), strict=True):
            for path, found in zip(batch, results, strict=True):
                if isinstance(found, OSError):
                    reason = found.strerror or str(found)
                    problems.append(Problem(path, reason, "restore the file or remove its row"))
                    continue
                key, digests[path] = found
                if key not in known:
                    fresh[key] = digests[path]
    if problems:
        raise ProblemsError(str(manifest.source or manifest.root), problems)
    if cache is not None and fresh:
        _write_cache(cache, known | fresh)
    return pd.DataFrame({c: table[c].map(digests).astype("str") for c in columns})


def _digest(path: str) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(
            stream, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)
        ).hexdigest()


def _read_cache(cache: Path | None) -> dict[_Key, str]:
    if cache is None or not cache.is_file():
        return {}
    try:
        frame = pd.read_parquet(cache, columns=_FIELDS)
        if frame["digest"].str.len().ne(2 * _DIGEST_BYTES).any():
            return {}
        numbers = (map(int, frame[field]) for field in _FIELDS[1:4])
        keys = zip(frame["path"], *numbers, strict=True)
        return dict(zip(keys, map(str, frame["digest"]), strict=True))
    except Exception:  # whatever a damaged file makes the reader raise, hashing again repairs it
        return {}


def _write_cache(cache: Path, digests: dict[_Key, str]) -> None:
    latest = {key[0]: (*key, digest) for key, digest in digests.items()}  # a path's last state
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache) as partial:
            pd.DataFrame(list(latest.values()), columns=_FIELDS).to_parquet(partial, index=False)
