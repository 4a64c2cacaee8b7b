"""Values that are computed once for each key, of which the latest used are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Once(Generic[Key, Value]):
    """Values by key, for several threads: while one computes a value, the others wait for it.

    Args:
        kept: Number of values that are kept.

    Example:
        >>> squares = Once[int, int](kept=2)
        >>> squares.get(3, lambda: 9), squares.get(3, lambda: 0)
        (9, 9)
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, Future[Value]] = OrderedDict()

    def get(self, key: Key, compute: Callable[[], Value]) -> Value:
        """Value of a key; errors are raised in all threads that wait, and are not kept."""
        with self._lock:
            found = self._values.get(key)
            own = found is None
            if found is None:
                found = self._values[key] = Future()
                while len(self._values) > self._kept:
                    self._values.popitem(last=False)
            else:
                self._values.move_to_end(key)
        if own:
            try:
                found.set_result(compute())
            except BaseException as error:
                with self._lock:
                    if self._values.get(key) is found:
                        del self._values[key]
                found.set_exception(error)
        return found.result()
