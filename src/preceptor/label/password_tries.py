"""Limit on wrong passwords."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

WITHIN = 60.0
"""Seconds for which a wrong password counts."""
OF_ADDRESS, OF_ALL = 10, 1000
"""Wrong passwords that are possible within this time from one address, and from all of them."""


class PasswordTries:
    """Wrong passwords of the last minute, by address.

    Args:
        clock: Monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()

    def are_left(self, address: str) -> bool:
        """Whether a password from an address is looked at now."""
        with self._lock:
            while self._wrong and self._wrong[0][0] <= self._clock() - WITHIN:
                _, old = self._wrong.popleft()
                self._counts[old] -= 1
                if not self._counts[old]:
                    del self._counts[old]
            return len(self._wrong) < OF_ALL and self._counts[address] < OF_ADDRESS

    def add_wrong(self, address: str) -> None:
        """Record a wrong password."""
        with self._lock:
            self._wrong.append((self._clock(), address))
            self._counts[address] += 1
