"""Watch of a manifest or folder for changes after its images were read."""

from __future__ import annotations

import threading

from preceptor.errors import InputError
from preceptor.label.interval import Interval
from preceptor.label.sources import Source, find_source

INTERVAL = 30.0
"""Seconds between two comparisons."""


class SourceWatch:
    """Whether a manifest or folder differs from what a server has read of it.

    Its time of change and its size are compared first, and its contents only if these differ. Of a
    folder, files that are added to or removed from its subfolders are not noticed. Between two
    comparisons there is some time, as all files of a folder are listed.

    Args:
        source: Manifest or folder, as it was read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._checking = threading.Lock()
        self._stamp: tuple[int, int] | None = None  # of the last comparison of contents
        self._differs = False
        self._interval = Interval(INTERVAL)

    @property
    def has_changed(self) -> bool:
        """Whether it has changed; a source that is gone or cannot be read has not."""
        if self._checking.acquire(blocking=False):
            try:
                if self._interval.is_over():
                    self._differs = self._compared()
            finally:
                self._checking.release()
        return self._differs

    def _compared(self) -> bool:
        try:
            stat = self._source.place.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            if stamp == self._stamp:
                return self._differs
            found = find_source(self._source.place)
        except (OSError, InputError):
            return False
        self._stamp = stamp
        return found.digest != self._source.digest
