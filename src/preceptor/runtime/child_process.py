"""Child processes: their environment, and their end with their parent's."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any


@contextlib.contextmanager
def environment_of(**values: str) -> Iterator[None]:
    """Environment variables of the processes that are started in the block."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def call_in_child(module: str, function: str, *arguments: Any) -> None:
    """Target of a child process: a function by its name, whose module the parent need not import.

    The process belongs to its parent before the module is imported, which may take seconds.
    """
    belong_to_parent()
    getattr(importlib.import_module(module), function)(*arguments)


def belong_to_parent() -> None:
    """Leave Ctrl-C to the parent of this process, and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    """End this process when its parent ends."""
    wait([sentinel])
    os._exit(1)
