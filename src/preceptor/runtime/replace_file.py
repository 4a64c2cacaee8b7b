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
# Errors of files that are written, never of those that are read.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Context that writes a new file or folder next to `path` and renames it to `path` at the end.

    The content is flushed to the disk before the renaming, so that a power failure cannot leave an
    empty or truncated file under the final name. If the block raises, the new file is removed and
    `path` is unchanged. An existing folder is renamed, and removed after the renaming. An error of
    the new file names `path`, since the temporary one is gone.

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
    partial = _hidden_beside(path)
    try:
        yield partial
        if flush:
            flush_to_disk(partial)
        if partial.is_dir() and path.is_dir():
            _replace_folder(path, partial)
        else:
            partial.replace(path)
    except BaseException as error:
        if isinstance(error, OSError):
            _name(error, partial, path)
        with contextlib.suppress(OSError):  # frees space on a full disk
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        raise
    if flush:
        _flush(path.parent)


def _hidden_beside(path: Path) -> Path:
    return path.with_name(f".{beginning(path.name, 64)}.{uuid.uuid4().hex}.tmp")


def beginning(name: str, most: int) -> str:
    """Whole characters at the beginning of a file name that have at most so many bytes.

    File systems limit the bytes of a name, and a character has up to four.

    Example:
        >>> beginning("größe", 4), beginning("größe", 3)
        ('grö', 'gr')
    """
    return os.fsencode(name)[:most].decode("utf-8", "ignore")


def _replace_folder(path: Path, new: Path) -> None:
    """Rename a folder to the name of another one, which is removed then.

    Were it removed before, readers could see a part of it, and an error could leave one.
    """
    old = _hidden_beside(path)
    path.rename(old)
    try:
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            old.rename(path)
        if path.exists():  # another process has taken the name, or it is the old folder again
            remove_folder(old)
        raise
    remove_folder(old)


def remove_folder(folder: Path) -> None:
    """Remove a folder, or a link to one, if there is one."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what interrupted replacements have left in a folder that no other process writes."""
    for left in folder.glob(".*.tmp"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a folder to an existing or new one.

    Unlike `shutil.copytree`, it ends with the error of the first file that cannot be copied.

    Args:
        source: Folder.
        target: Its copy.
    """
    target.mkdir(exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_dir():
            copy_folder(file, target / file.name)
        else:
            shutil.copy2(file, target / file.name)


def _name(error: OSError, partial: Path, path: Path) -> None:
    """Name the final path in an error of the temporary one, or of a full disk."""
    named = error.filename2 if error.errno in _FULL and error.filename2 else error.filename
    if error.errno in _FULL if named is None else str(named).startswith(str(partial)):
        error.filename, error.filename2 = str(path), None


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
