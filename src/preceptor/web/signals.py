"""Handlers of signals for a while."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def handling(signals: tuple[signal.Signals, ...], stop: Callable[..., None]) -> Iterator[None]:
    """Context with a handler of signals; uvicorn's own raises them again after its end."""
    before = {one: signal.signal(one, stop) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
