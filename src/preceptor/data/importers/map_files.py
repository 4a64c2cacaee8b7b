"""Map files of an import, written by threads while the next images are read."""

from __future__ import annotations

import posixpath
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from preceptor.data.importers.gray_png import write_gray_png
from preceptor.data.importers.shapes import Pixels
from preceptor.runtime.cores import core_count

# Maps that wait for being written, and their bytes; bound the memory.
_WAITING = 64
_BYTES = 256 * 2**20


class MapFiles:
    """Writer of maps into a folder, used as a context manager.

    Args:
        folder: Output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(core_count())
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0
        self._made: set[str] = set()

    def __enter__(self) -> MapFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future, _ in self._waiting:
                future.result()

    def save(self, name: str, pixels: Pixels) -> None:
        """Write a map; errors of earlier ones are raised here or at the end of the block.

        Args:
            name: Path in the folder, with / between folders.
            pixels: uint8 of shape (height, width); must not be changed afterwards.
        """
        while self._waiting and (
            len(self._waiting) >= _WAITING or self._bytes + pixels.nbytes > _BYTES
        ):
            future, size = self._waiting.popleft()
            self._bytes -= size
            future.result()
        future = self._pool.submit(write_gray_png, self.place(name), pixels)
        self._waiting.append((future, pixels.nbytes))
        self._bytes += pixels.nbytes

    def place(self, name: str) -> Path:
        """Path of a file in the folder, whose own folder exists."""
        parent = posixpath.dirname(name)
        path = self.folder / name
        if parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(parent)
        return path
