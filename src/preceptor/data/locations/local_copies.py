"""Local copies of remote content, up to a size; those that were not used for longest are removed.

A copy is a file named by the hash of the location and its state, so that a changed file has another
name. It ends with a checksum, which is verified whenever it is read: what was damaged, or was left
by a process that died, is fetched again. Copies of several processes lie in one folder.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from preceptor.errors import InputError, quoted
from preceptor.runtime.cache_dir import default_cache_dir
from preceptor.runtime.file_lock import locked
from preceptor.runtime.replace_file import replacing

VARIABLE = "PRECEPTOR_REMOTE_CACHE"
"""Environment variable with the largest size of all copies, such as 20GB; 0 = no copies."""
DEFAULT_SIZE = 20 * 10**9
_DIGEST = 16
_UNITS = {"": 1, "B": 1} | {
    unit: base**power
    for base, end in ((1000, "B"), (1024, "IB"))
    for power, letter in enumerate("KMGT", 1)
    for unit in (letter + end, *([letter] if end == "B" else []))
}
_LARGEST = 2.0**63  # bytes: no file system has more
# Copies of other processes are counted when this share of the size was written by this one.
_COUNTED = 1 / 16
_LEFT = 0.9  # share of the size that is left after a removal
_SPARE_DISK = 256 * 2**20  # bytes that stay free for what matters more
_ABANDONED = 24 * 3600.0  # seconds after which a file that was not finished belongs to no process


class LocalCopies:
    """Folder of copies.

    Args:
        folder: Folder; it is made.
        size: Largest size of all copies in bytes. It may be exceeded by a sixteenth for each
            process that writes, and by the files that are being written.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self._lock = threading.Lock()
        self._written = size  # since the last count: the first copy counts what is there
        self._failed = False

    def read(self, key: str) -> bytes | None:
        """Content of a copy; None if there is none or it is damaged."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        content, digest = data[:-_DIGEST], data[-_DIGEST:]
        if len(data) < _DIGEST or _digest(content) != digest:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the order of removal; a clock that jumps can only remove too early
        return content

    def write(self, key: str, content: bytes) -> None:
        """Store a copy; without space or write access nothing is stored, which is noted once."""
        if not 0 < len(content) + _DIGEST <= self.size:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free - len(content) < _SPARE_DISK:
                raise OSError(errno.ENOSPC, "the disk is full")
            self._make_room(len(content) + _DIGEST)
            with replacing(path, flush=False) as partial:  # verified when it is read
                partial.write_bytes(content + _digest(content))
        except OSError as error:
            with self._lock:
                told, self._failed = self._failed, True
            if not told:
                logging.getLogger("preceptor.data").warning(
                    "%s: copies of remote files cannot be kept (%s); they are read again when they "
                    "are needed",
                    self.folder,
                    error.strerror or type(error).__name__,
                )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _make_room(self, added: int) -> None:
        with self._lock:
            self._written += added
            if self._written <= self.size * _COUNTED:
                return
            self._written = added
        with locked(self.folder / "remove.lock"):
            self._remove(added)

    def _remove(self, added: int) -> None:
        """Remove the copies that were not used for longest, if all are too large together."""
        found = sorted(self._files())
        total = sum(size for _, size, _ in found) + added
        if total <= self.size:
            return
        for _, size, path in found:
            if total <= self.size * _LEFT:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 (a string)
            total -= size

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Time of the last use, size and path of each copy; abandoned parts are removed."""
        now = max((entry.stat().st_mtime for entry in os.scandir(self.folder)), default=0.0)
        for folder in os.scandir(self.folder):
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                try:
                    state = entry.stat()
                    if entry.name.startswith(".") and state.st_mtime < now - _ABANDONED:
                        os.unlink(entry)  # noqa: PTH108
                        continue
                except FileNotFoundError:  # another process has removed it
                    continue
                yield state.st_mtime, state.st_size, entry.path


def copy_key(*parts: object) -> str:
    """Name of a copy: the hash of a location, its state, and what else determines the content."""
    text = "\n".join(map(str, parts))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=20).hexdigest()


def local_copies() -> LocalCopies:
    """Copies in the folder `remote` of the cache folder, of the size of PRECEPTOR_REMOTE_CACHE.

    Raises:
        InputError: The size is no size.
    """
    return _opened(default_cache_dir() / "remote", os.environ.get(VARIABLE, ""))


@functools.cache
def _opened(folder: Path, size: str) -> LocalCopies:
    return LocalCopies(folder, bytes_of(size) if size else DEFAULT_SIZE)


def bytes_of(text: str) -> int:
    """Number of bytes of a size.

    Raises:
        InputError: It is no size.

    Example:
        >>> bytes_of("20GB"), bytes_of("1.5 GiB"), bytes_of("0")
        (20000000000, 1610612736, 0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = found and _UNITS.get(found[2].upper())
    if not found or unit is None or float(found[1]) * unit >= _LARGEST:
        raise InputError(
            f"{VARIABLE} is {quoted(text)}; set a size such as 20GB, or 0 for no copies"
        )
    return int(float(found[1]) * unit)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()
