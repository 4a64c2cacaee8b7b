"""Tar and Parquet files as containers of images: state, and reading of parts."""

# os and not Path: a container is asked for its state once for each member that is read.
# ruff: noqa: PTH116

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from preceptor.data.locations.failures import LocationError, container_error
from preceptor.data.locations.location import Container, LocalFile
from preceptor.data.locations.requests import RemoteState, State, remote_part, remote_state

Result = TypeVar("Result")

CHANGED = "it changes while it is read", "repeat the command when it is finished"
ATTEMPTS = 3
"""Number of readings of a file that changes meanwhile."""


@dataclass(frozen=True)
class OpenContainer:
    """Container in one state.

    Args:
        place: Local or remote file.
        size: Size in bytes.
        state: State as numbers.
        is_marked: Whether the state changes whenever the content does.
    """

    place: Container
    size: int
    state: State
    is_marked: bool = True

    @property
    def is_remote(self) -> bool:
        """Whether it is a remote file."""
        return not isinstance(self.place, LocalFile)

    @property
    def key(self) -> tuple[str, State]:
        """Address and state, of which whatever is known of a container is a function."""
        address = self.place.path if isinstance(self.place, LocalFile) else self.place.url
        return address, self.state

    def part(self, start: int, stop: int) -> bytes:
        """Bytes from `start` to before `stop`.

        Raises:
            OSError: They cannot be read.
        """
        if not isinstance(self.place, LocalFile):
            return remote_part(self.place.url, start, stop, self.size)
        with open(self.place.path, "rb") as file:  # noqa: PTH123 (a string)
            file.seek(start)
            content = file.read(stop - start)
        if len(content) != stop - start:
            raise container_error(f"the file is cut short at byte {start + len(content):,}")
        return content

    def stream(self, ahead: int = 0) -> PartStream:
        """Stream of its bytes, which reads at least `ahead` of them at once."""
        return PartStream(self, ahead)


def open_container(place: Container) -> OpenContainer:
    """Container in its state now.

    Raises:
        OSError: It does not exist or cannot be reached.
    """
    if isinstance(place, LocalFile):
        found = os.stat(place.path)
        state = found.st_size, found.st_mtime_ns, found.st_ctime_ns
        return OpenContainer(place, found.st_size, state)
    return _of_remote(place, remote_state(place.url))


def _of_remote(place: Container, state: RemoteState) -> OpenContainer:
    if state.size is None:
        raise container_error("the server does not tell its size", "copy the file to a local disk")
    return OpenContainer(place, state.size, state.numbers, bool(state.mark))


def read_unchanged(place: Container, read: Callable[[OpenContainer], Result]) -> Result:
    """What is read from a container, which is in the same state before and after.

    Args:
        place: Local or remote file.
        read: Function that reads from the container in its state.

    Raises:
        LocationError: It changes while it is read, or cannot be read.
        FileNotFoundError: It does not exist.
    """
    before = _recent(place)
    for _ in range(ATTEMPTS):
        try:
            found = read(before)
        except LocationError:
            after = open_container(place)
            if _same(before, after):
                raise
        else:
            after = open_container(place)
            if _same(before, after):
                _RECENT[place] = time.monotonic(), after
                return found
        before = after
    raise container_error(*CHANGED)


def _same(one: OpenContainer, other: OpenContainer) -> bool:
    if one.is_marked and other.is_marked:
        return one.state == other.state
    return one.is_marked == other.is_marked and one.size == other.size


# The state before a reading may be of a moment ago, since it is compared with the one afterwards.
_RECENT: dict[Container, tuple[float, OpenContainer]] = {}
_MOMENT = 2.0  # seconds


def _recent(place: Container) -> OpenContainer:
    if not isinstance(place, LocalFile) and (found := _RECENT.get(place)) is not None:
        asked, container = found
        if time.monotonic() - asked < _MOMENT:
            return container
    if len(_RECENT) > 10_000:
        _RECENT.clear()
    return open_container(place)


class PartStream(io.RawIOBase):
    """Bytes of a container as a seekable stream.

    Args:
        container: Container.
        ahead: Least number of bytes that are read at once.
    """

    def __init__(self, container: OpenContainer, ahead: int = 0) -> None:
        super().__init__()
        self._container = container
        self._ahead = ahead
        self._at = 0
        self._start, self._kept = 0, b""

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it has positions."""
        return True

    def tell(self) -> int:
        """Position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._container.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; memory is taken for those that are there, whatever a header asks."""
        left = max(0, self._container.size - self._at)
        return super().read(min(size, left)) if size >= 0 else super().read(left)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer; returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._container.size)
        if self._at >= stop:
            return 0
        if not self._start <= self._at <= stop <= self._start + len(self._kept):
            end = min(max(stop, self._at + self._ahead), self._container.size)
            self._start, self._kept = self._at, self._container.part(self._at, end)
        part = self._kept[self._at - self._start : stop - self._start]
        view[: len(part)] = part
        self._at = stop
        return len(part)
