"""Files and folders: atomic replacement, named errors, walks, relative paths."""

# os.path and not Path in walks and relative paths: a million are looked at.
# ruff: noqa: PTH100, PTH114, PTH118, PTH206

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from preceptor.errors import HeldError, InputError, reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Errors of file systems that cannot flush this kind of file; all others are failed writes.
_CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
# Errors of files that are written, never of those that are read.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(path: Path, *, flush: bool = True, new: bool = False) -> Iterator[Path]:
    """Context that writes a new file or folder next to `path` and renames it to `path` at the end.

    Readers see the old or the new content, never a part. With `flush`, the content is on the disk
    before. If the block raises, `path` is unchanged. `new` is for folders of `new_folder`.
    """
    path = Path(path)
    partial = _hidden_beside(path)
    try:
        yield partial
        if flush:
            _flush_all(partial)
        if new:
            new_folder(path)
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


def new_folder(to: Path) -> Path:
    """Absolute path of an output folder, new or empty; an InputError names the option `--to`."""
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise InputError(f"{to} exists already; name a new folder with --to")
    target = Path(os.path.abspath(to))
    if not target.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    return target


def _hidden_beside(path: Path) -> Path:
    return path.with_name(f".{beginning(path.name, 64)}.{uuid.uuid4().hex}.tmp")


def beginning(name: str, most: int) -> str:
    """Whole characters at the beginning of a file name that have at most so many bytes."""
    return os.fsencode(name)[:most].decode("utf-8", "ignore")


def _replace_folder(path: Path, new: Path) -> None:
    """Rename a folder to the name of another one, which is removed then."""
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
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a folder; unlike `shutil.copytree`, it ends with the first error."""
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


def _flush_all(path: Path) -> None:
    """Wait until a file, or a folder with its contents, is on the disk."""
    if not path.is_dir():
        _flush(path)
        return
    folders, files = [], []
    for base, _, names in os.walk(path):
        folders.append(base)
        files += [os.path.join(base, name) for name in names]
    with ThreadPoolExecutor(32) as pool:  # each flush waits; a disk serves many at once
        list(pool.map(_flush, files))
    for folder in reversed(folders):
        _flush(folder)


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


@contextlib.contextmanager
def tensors_to(path: Path) -> Iterator[None]:
    """Context in which safetensors writes a file."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, reason(error), str(path)) from error


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Context in which a file is locked, which the system ends if the process dies.

    HeldError if another process has the lock, InputError if the file system has no locks.
    """
    file.touch()
    if fcntl is not None:
        with file.open("rb") as probe, contextlib.suppress(BlockingIOError):
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    error.filename = str(file)
                    raise
                raise InputError(
                    f"{file.parent}: its file system has no file locks (flock), so that two "
                    "processes could write the same file; name a file on another file system"
                ) from error
    try:
        lock = FileLock(file).acquire(timeout=0)
    except Timeout as error:
        raise HeldError(f"{file}: another process has it") from error
    with lock:
        yield


def failed_write(error: OSError, path: Path) -> str:
    """Path and reason of an error."""
    return f"{error.filename or path}: {error.strerror or reason(error)}"


def relative_path(path: str, folder: Path | str) -> str:
    """Path from a folder that the system resolves to the same file.

    `..` after a symbolic link is the parent of the link's target. Where the path of
    `os.path.relpath` would cross a link in this way, the path between the real folders is taken.
    """
    parent, name = os.path.split(path)
    near = _relative_folder(parent, os.path.abspath(folder))
    return name if near == os.curdir else os.path.join(near, name)


@lru_cache(4096)
def _relative_folder(parent: str, folder: str) -> str:
    near, real = os.path.relpath(parent, folder), os.path.realpath(parent)
    if os.path.realpath(os.path.join(folder, near)) == real:
        return near
    return os.path.relpath(real, os.path.realpath(folder))


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in sorted order, without hidden folders; a folder that cannot be read is an error.

    Links to folders are followed. No folder comes twice: a link to a folder that is reached without
    it is left out, and so is one that leads back.
    """
    root = os.path.realpath(folder)
    reached = {root}
    linked: set[str] = set()  # folders that were reached by a link
    for base, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        shown = []
        for name in sorted(filter(_is_shown, folders)):
            path = os.path.join(base, name)
            if base in linked or os.path.islink(path):
                real = os.path.realpath(path)
                below = real.removeprefix(os.path.join(root, ""))
                if real in reached or (below != real and all(map(_is_shown, below.split(os.sep)))):
                    continue
                reached.add(real)
                linked.add(path)
            shown.append(name)
        folders[:] = shown
        yield base, folders, names


def _is_shown(name: str) -> bool:
    return name[0] != "." and name != "lost+found"  # at the top of a disk, for its administrator


def _raise(error: OSError) -> None:
    raise error


def default_cache_dir() -> Path:
    """Default folder of caches: PRECEPTOR_CACHE, or the user's cache folder."""
    if own := os.environ.get("PRECEPTOR_CACHE"):  # an empty path would be the working folder
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "preceptor"
