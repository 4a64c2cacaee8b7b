"""Files and folders: atomic replacement, named errors, locks, walks, relative paths.

Readers see the old or the new content of a path that is replaced, never a part of it.
"""

# os.path and not Path in walks and relative paths: a million are looked at.
# ruff: noqa: PTH100, PTH114, PTH118, PTH206

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors import SafetensorError

from preceptor.errors import reason

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
        files += [os.path.join(base, name) for name in names]
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


@contextlib.contextmanager
def tensors_to(path: Path) -> Iterator[None]:
    """Context in which safetensors writes a file.

    Raises:
        OSError: The file cannot be written, for example on a full disk.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, reason(error), str(path)) from error


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Context in which an error of a file that names none names a path.

    Raises:
        OSError: The file cannot be written, for example on a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def failed_write(error: OSError, path: Path) -> str:
    """Path and reason of an error.

    Args:
        error: Error of a file.

    Example:
        >>> failed_write(OSError(28, "No space left on device"), Path("runs"))
        'runs: No space left on device'
    """
    return f"{error.filename or path}: {error.strerror or reason(error)}"


try:
    import fcntl
except ImportError:  # on Windows writers do not wait, and the last rename is harmless
    fcntl = None  # type: ignore[assignment]

# Errors of a lock that another holder has; EACCES on some network file systems.
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
# Errors of file systems without locks, such as Lustre that is mounted without `flock`.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Context with an advisory lock on a file, which the kernel releases if the process dies.

    Yields:
        Whether this process has the lock; False if the system or its file system has no locks.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("wb") as file:
        yield _lock(file.fileno(), shared=False)


@contextlib.contextmanager
def shared_lock(path: Path) -> Iterator[bool]:
    """Context with an advisory lock on a file that several processes may share, but not with the
    holder of `locked` or `locked_if_free`. The file is created if it is missing.

    Yields:
        Whether this process has the lock; False if the system or its file system has no locks, or
        the file can be neither opened nor created.
    """
    try:
        try:
            handle = os.open(path, os.O_RDONLY)  # in /tmp, creating would need to be its owner
        except FileNotFoundError:
            handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:
        yield False
        return
    try:
        yield _lock(handle, shared=True)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Context with the lock of an existing file, if no other holder has it.

    Yields:
        Whether this process has the lock; False as well if that cannot be known: there is no such
        file, it cannot be opened, or the system or its file system has no locks.
    """
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        yield _lock_at_once(handle)
    finally:
        os.close(handle)


def lock_for_good(handle: int) -> bool:
    """Lock an open file until it is closed, unless another holder has the lock.

    Args:
        handle: File descriptor.

    Returns:
        False if another holder has it; True as well if the system or its file system has no locks.

    Raises:
        OSError: Another error of the file system.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD | _NO_LOCKS:
            raise
        return error.errno in _NO_LOCKS
    return True


def _lock(handle: int, *, shared: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _lock_at_once(handle: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class RelativePaths:
    """Paths from a folder that the system resolves to the same files.

    `..` after a symbolic link is the parent of the link's target. Where the path of
    `os.path.relpath` would cross a link in this way, the path between the real folders is taken.

    Example:
        >>> RelativePaths("/data/tables").of("/data/images/a.png")
        '../images/a.png'
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = os.path.abspath(folder)
        self._near: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Path of a file.

        Raises:
            ValueError: It is on another drive.
        """
        parent, name = os.path.split(path)
        near = self._near.get(parent)
        if near is None:
            near = self._near[parent] = self._to(parent)
        return name if near == os.curdir else os.path.join(near, name)

    def _to(self, folder: str) -> str:
        near, real = os.path.relpath(folder, self._folder), os.path.realpath(folder)
        if os.path.realpath(os.path.join(self._folder, near)) == real:
            return near
        return os.path.relpath(real, os.path.realpath(self._folder))


_OF_SYSTEM = "lost+found"  # at the top of a disk, and for the administrator alone


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The same as `os.walk`, which would pass over a folder that cannot be read without a word.

    Hidden folders are left out. Links to folders are followed, and no folder comes twice: a link
    to a folder that is reached without it is left out, and so is one that leads back.

    Yields:
        A folder, names of its folders, which may be changed, and names of its files.

    Raises:
        OSError: A folder cannot be read.
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
    return name[0] != "." and name != _OF_SYSTEM


def _raise(error: OSError) -> None:
    raise error


def default_cache_dir() -> Path:
    """Default folder of caches: PRECEPTOR_CACHE, or the user's cache folder."""
    if own := os.environ.get("PRECEPTOR_CACHE"):  # an empty path would be the working folder
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "preceptor"
