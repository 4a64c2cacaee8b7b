"""Handlers of signals for a while."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def handling(signals: tuple[signal.Signals, ...], stop: Callable[..., None]) -> Iterator[None]:
    """Context with a handler of signals, in the main thread.

    Around a server: the handler of uvicorn raises the signals again after its end.

    Args:
        signals: Signals.
        stop: Handler, called with the number of the signal and the stack frame.
    """
    before = {one: signal.signal(one, stop) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
