"""Removal of what killed passes left in a folder of caches."""

from __future__ import annotations

import shutil
from pathlib import Path

from preceptor.runtime.file_lock import locked_if_free

_PREFIX = ".fill-"


def fill_lock(cache_dir: Path, key: str) -> Path:
    """File whose lock a process holds while it fills a cache with the table with this key."""
    return cache_dir / f"fill-{key}.lock"


def fill_prefix(key: str) -> str:
    """Prefix of the hidden folder of the unfinished shards of the table with this key."""
    return f"{_PREFIX}{key}."


def remove_dead_fills(cache_dir: Path, key: str, *, locked: bool) -> None:
    """Remove hidden folders of unfinished shards that no living process fills.

    Args:
        cache_dir: Folder of the caches.
        key: Key of the table that this process fills. The folders of other tables, such as those of
            a manifest that has changed since, are removed if their lock is free.
        locked: Whether this process has the lock of its table. Without locks, those of another
            process that fills the same table cannot be told apart, and are left.
    """
    for folder in cache_dir.glob(f"{_PREFIX}*.tmp"):
        of = folder.name.removeprefix(_PREFIX).partition(".")[0]
        if of == key:
            if locked:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        with locked_if_free(fill_lock(cache_dir, of)) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)
