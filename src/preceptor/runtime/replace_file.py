"""Replacing a file or a folder at once: readers see the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

# What a file system says that cannot flush this kind of file; anything else is a failed write.
_CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


@contextlib.contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Write a new file or folder beside `path`, and give it that name when the block ends.

    The content reaches the disk before the name does, so that a power cut cannot leave an empty or
    a cut file under the final name. If the block raises, what it wrote is removed and `path` stays
    as it was. A folder that is there already is removed before the new one takes its name.

    Args:
        path: The final name; its folder must exist.
        flush: Whether to wait until the content is on the disk; false for what may be lost in a
            power cut, since it is written again or checked when it is read.

    Yields:
        The name under which the block writes the file or makes the folder.

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
        with contextlib.suppress(OSError):  # on a full disk the room is needed
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        raise
    if flush:
        _flush(path.parent)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk.

    Raises:
        OSError: It cannot be written, as on a full disk.
    """
    if path.is_dir():
        for inside in path.iterdir():
            flush_to_disk(inside)
    _flush(path)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(handle)
