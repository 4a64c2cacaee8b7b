"""Lock of an image cache: its shards are not removed while a process looks them up or adds some."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from preceptor.errors import RunFailedError
from preceptor.runtime.file_lock import locked_if_free, shared_lock

_FILE = "use.lock"
# Seconds between attempts, and their number: looking up a manifest takes less than a second or two.
_PAUSE, _ATTEMPTS = 0.1, 50


def cache_in_use(cache_dir: Path) -> AbstractContextManager[bool]:
    """Context in which no shard of a cache is removed; many processes may be in it at once.

    A process that has opened its view before it leaves the context keeps its images for a day, and
    those of shards that it has memory-mapped for as long as it runs. Without locks, or without
    write access to a folder in which nothing was removed before, it has no effect.
    """
    return shared_lock(cache_dir / _FILE)


@contextlib.contextmanager
def cache_to_itself(cache_dir: Path) -> Iterator[None]:
    """Context in which no other process looks up shards of a cache or adds some.

    Raises:
        RunFailedError: The cache is in use, or its file system has no locks.
        OSError: The folder cannot be written.
    """
    file = cache_dir / _FILE
    file.touch()
    for _ in range(_ATTEMPTS):
        with locked_if_free(file) as free:
            if free:
                yield
                return
        time.sleep(_PAUSE)
    raise RunFailedError(
        f"image cache {cache_dir}: a process is filling it, or its file system has no locks; start "
        "again later, or remove the folder while nothing uses it"
    )
