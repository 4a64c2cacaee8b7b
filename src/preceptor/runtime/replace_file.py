"""Atomic replacement of files and folders: readers see the old or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_FLUSHES = 32
# Errors of file systems that cannot flush this kind of file; all others are failed writes.
_CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


@contextlib.contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Context that writes a new file or folder next to `path` and renames it to `path` at the end.

    The content is flushed to the disk before the renaming, so that a power failure cannot leave an
    empty or truncated file under the final name. If the block raises, the new file is removed and
    `path` is unchanged. An existing folder is removed before the renaming.

    Args:
        path: Final path; its parent folder must exist.
        flush: Whether to wait until the content is on the disk; False for files that are written
            again or verified when they are read.

    Yields:
        Temporary path of the new file or folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as partial:
        ...         _ = partial.write_text("whole")
        ...     Path(folder, "a.txt").read_text(), len(list(Path(folder).iterdir()))
        ('whole', 1)
    """
    path = Path(path)
    partial = path.with_name(f".{path.name[:64]}.{uuid.uuid4().hex}.tmp")
    try:
        yield partial
        if flush:
            flush_to_disk(partial)
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # frees space on a full disk
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        raise
    if flush:
        _flush(path.parent)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or a folder with its contents, is on the disk.

    Raises:
        OSError: It cannot be written, for example on a full disk.
    """
    if not path.is_dir():
        _flush(path)
        return
    folders, files = [], []
    for base, _, names in os.walk(path):
        folders.append(base)
        files += [os.path.join(base, name) for name in names]  # noqa: PTH118 (100,000 of them)
    # Each flush waits for the disk; a disk serves many of them at once.
    with ThreadPoolExecutor(_FLUSHES) as pool:
        for _ in pool.map(_flush_all, (files[at::_FLUSHES] for at in range(_FLUSHES))):
            pass
    for folder in reversed(folders):
        _flush(folder)


def _flush_all(paths: Sequence[str]) -> None:
    for path in paths:
        _flush(path)


def _flush(path: Path | str) -> None:
    if os.name == "nt" and Path(path).is_dir():  # folders cannot be opened on Windows
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(handle)
