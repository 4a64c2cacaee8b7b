"""Advisory locks on files."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

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
