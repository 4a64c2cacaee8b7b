"""Shortest time between two repetitions of something."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Interval:
    """Shortest time between two repetitions of something, in any thread.

    Args:
        seconds: The time.
        clock: Function that returns seconds.

    Example:
        >>> interval = Interval(60.0)
        >>> interval.is_over(), interval.is_over()
        (True, False)
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._last: float | None = None
        self._lock = threading.Lock()

    def is_over(self) -> bool:
        """Whether the time has passed since it was over last, or never was; it begins anew then."""
        with self._lock:
            now = self._clock()
            if self._last is not None and now - self._last < self._seconds:
                return False
            self._last = now
            return True
