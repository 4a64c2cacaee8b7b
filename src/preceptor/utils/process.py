"""Processes: available cores, imports, children that end with their parent, and signals."""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from preceptor.errors import InputError

RUN_THREADS = 1
"""CPU threads of a run, where nothing else is set. Runs of a study do not wait for each other and
the threads of a run do, so that many runs finish first if each has one thread: n threads make a run
less than n times as fast (`preceptor doctor` measures how much)."""


def core_count(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of cores by the process's affinity and its container's quota, at least one.

    Args:
        quota: File of the control group: microseconds of CPU time per period (or max), and the
            period.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, IndexError):
        most, period = quota.read_text(encoding="ascii").split()[:2]
        if most != "max":
            cores = min(cores, math.ceil(int(most) / int(period)))
    return max(1, cores)


def job_count(threads: int) -> int:
    """Number of concurrent jobs that the cores allow, at least one.

    Args:
        threads: CPU threads of each job.
    """
    return max(1, core_count() // threads)


def checked_jobs(jobs: int | None, threads: int, tell: Callable[[str], None]) -> int | None:
    """Number of jobs, limited so that jobs × threads does not exceed the cores.

    Raises:
        InputError: `jobs` is below 1.
    """
    most = job_count(threads)
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: must be 1 or more")
    if jobs is not None and jobs > most:
        tell(f"{jobs} jobs of {threads} threads exceed the {core_count()} cores; using {most} jobs")
    return None if jobs is None else min(jobs, most)


@contextlib.contextmanager
def bulk_import() -> Iterator[None]:
    """Context for the first import of torch and of what is built on it.

    Importing makes a million objects that stay. The collector would search them again and again,
    for a fifth of the time of the import; afterwards they are exempted from collection for good
    (`gc.freeze`), also from the collections of a training. For processes of this package only, at
    their start; where torch is imported already, nothing is changed.
    """
    if "torch" in sys.modules:
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


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
