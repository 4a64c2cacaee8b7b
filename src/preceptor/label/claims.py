"""Claims and tabs: which images are handed out, and which tab has an image open.

They are in memory: after a restart, images that somebody has begun are claimed again, and the first
tab that asks for an image has it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

HANDED_OUT = 600.0
"""Seconds for which an image that was handed out is kept for a person."""
ALIVE = 30.0
"""Seconds after which a tab that does not renew is closed."""


class Claims:
    """Images that are handed out to people.

    Args:
        clock: Function that returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[int, dict[int, float]] = {}
        self._lock = threading.Lock()

    def others(self, image: int, person: int) -> int:
        """Number of other people who have an image."""
        with self._lock:
            now = self._clock()
            held = self._until.get(image)
            return sum(one != person and until > now for one, until in (held or {}).items())

    def images(self, person: int) -> set[int]:
        """Images that other people have."""
        with self._lock:
            now = self._clock()
            return {
                image
                for image, held in self._until.items()
                if any(one != person and until > now for one, until in held.items())
            }

    def take(self, images: Iterable[int], person: int) -> None:
        """Hand out images to a person, or renew it."""
        with self._lock:
            until = self._clock() + HANDED_OUT
            for image in images:
                self._until.setdefault(image, {})[person] = until

    def drop(self, image: int, person: int) -> None:
        """Give back an image that is answered."""
        with self._lock:
            held = self._until.get(image, {})
            held.pop(person, None)
            if not held:
                self._until.pop(image, None)


class Tabs:
    """Tabs that have images open.

    Args:
        clock: Function that returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[tuple[int, int], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def elsewhere(self, image: int, person: int, tab: str) -> bool:
        """Whether another tab of a person has an image open."""
        with self._lock:
            return self._elsewhere(image, person, tab)

    def _elsewhere(self, image: int, person: int, tab: str) -> bool:
        held = self._open.get((image, person))
        return held is not None and held[0] != tab and held[1] > self._clock()

    def open(self, image: int, person: int, tab: str, *, take: bool = False) -> bool:
        """Open an image in a tab, or renew it.

        Args:
            image, person: Numbers.
            tab: Name of the tab.
            take: Whether to take it from another tab.

        Returns:
            Whether the tab has it now.
        """
        with self._lock:
            if not take and self._elsewhere(image, person, tab):
                return False
            now = self._clock()
            if len(self._open) > 10_000:
                self._open = {key: one for key, one in self._open.items() if one[1] > now}
            self._open[image, person] = (tab, now + ALIVE)
            return True

    def close(self, image: int, person: int, tab: str) -> None:
        """Close an image in a tab."""
        with self._lock:
            if self._open.get((image, person), ("", 0.0))[0] == tab:
                del self._open[image, person]
