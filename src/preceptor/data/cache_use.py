"""Use of the disk by an image cache, the last use of its shards, and the removal of unused ones."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from preceptor.data.cache_lock import cache_to_itself
from preceptor.data.cache_view import VIEWS, view_uses
from preceptor.data.dead_fills import remove_dead_fills
from preceptor.data.decode_pass import INDEX, TABLES
from preceptor.data.shards import DIGESTS, SHARDS, mapped_array
from preceptor.errors import InputError

_DAY = 86_400.0


@dataclass(frozen=True)
class ShardUse:
    """Shard on the disk.

    Args:
        folder: Its folder, in that of its format.
        images: Number of its images or maps.
        bytes: Its size.
        last: Time of its last use in seconds since the epoch: that of the views that list it, or of
            its writing.
    """

    folder: Path
    images: int
    bytes: int
    last: float

    @property
    def form(self) -> str:
        """Name of the folder of its format."""
        return self.folder.parent.name


@dataclass(frozen=True)
class CacheUse:
    """Use of the disk by an image cache.

    Args:
        shards: Its shards, by format and name.
        others: Size of each other part, by the name of its folder.
    """

    shards: list[ShardUse]
    others: dict[str, int]


def cache_use(cache_dir: Path) -> CacheUse:
    """Use of the disk by an image cache.

    Args:
        cache_dir: Folder of the cache.

    Raises:
        InputError: The folder has no image cache.
    """
    _check(cache_dir)
    others = {name: _size(cache_dir / name) for name in (VIEWS, INDEX, TABLES)}
    return CacheUse(_shards(cache_dir), others)


def remove_unused(cache_dir: Path, days: float, now: float | None = None) -> list[ShardUse]:
    """Remove the shards and views of a cache that were not used for some days.

    Shards in a view that was used since are kept. What killed processes left is removed as well.
    Processes that have memory-mapped a shard keep its images.

    Args:
        cache_dir: Folder of the cache.
        days: Smallest time since the last use in days, at least 1.
        now: Time in seconds since the epoch; None = the current time.

    Returns:
        The removed shards.

    Raises:
        InputError: The folder has no image cache.
        RunFailedError: A process is filling the cache, or its file system has no locks.
        OSError: The folder cannot be written.
    """
    if days < 1:
        raise ValueError(f"days must be 1 or more, not {days}: views record their use by the hour")
    _check(cache_dir)
    before = (time.time() if now is None else now) - days * _DAY
    with cache_to_itself(cache_dir):
        unused = [one for one in _shards(cache_dir) if one.last < before]
        views = [one.folder for one in view_uses(cache_dir) if one.last < before]
        # Hiding them needs no disk space, and other processes wait for a moment only.
        for folder in (*views, *(one.folder for one in unused)):
            folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp"))
        remove_dead_fills(cache_dir, "", locked=False)
    for path in _hidden(cache_dir, before):  # also those of processes that were killed
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return unused


def _check(cache_dir: Path) -> None:
    if not (cache_dir / SHARDS).is_dir():
        raise InputError(
            f"{cache_dir}: no image cache; name its folder by --cache-dir (that of a study is "
            "cache in its store)"
        )


def _shards(cache_dir: Path) -> list[ShardUse]:
    last: dict[str, float] = {}
    for view in view_uses(cache_dir):
        for name in view.shards:
            last[name] = max(view.last, last.get(name, 0.0))
    found = []
    for folder in sorted((cache_dir / SHARDS).glob("[!.]*/[!.]*")):
        images = 0
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):  # a damaged shard
            images = len(mapped_array(folder / DIGESTS))
        with contextlib.suppress(OSError):  # removed meanwhile
            used = max(folder.stat().st_mtime, last.get(folder.name, 0.0))
            found.append(ShardUse(folder, images, _size(folder), used))
    return found


def _hidden(cache_dir: Path, before: float) -> Iterator[Path]:
    """Hidden files and folders that were not changed since a time; no process writes them."""
    for pattern in (f"{SHARDS}/*/.*.tmp", *(f"{one}/.*.tmp" for one in (VIEWS, INDEX, TABLES))):
        for path in cache_dir.glob(pattern):
            with contextlib.suppress(OSError):  # removed meanwhile
                if path.stat().st_mtime < before:
                    yield path


def _size(folder: Path) -> int:
    """Size of the files in a folder."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            total += file.stat().st_size if file.is_file() else 0
    return total
