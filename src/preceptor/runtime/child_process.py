"""Child processes: environment variables, and termination with the parent."""

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

from preceptor.runtime.bulk_import import bulk_import


@contextlib.contextmanager
def environment_of(**values: str) -> Iterator[None]:
    """Context with environment variables for the processes started in it."""
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
    """Target of a child process: a function given by name, so that the parent need not import it.

    The process is tied to its parent before the import, which may take seconds.
    """
    belong_to_parent()
    with bulk_import():
        target = getattr(importlib.import_module(module), function)
    target(*arguments)


def belong_to_parent() -> None:
    """Ignore Ctrl-C, which the parent handles, and terminate when the parent terminates."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    """Terminate this process when its parent terminates."""
    wait([sentinel])
    os._exit(1)
