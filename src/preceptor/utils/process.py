"""Processes: cores, imports, children that end with their parent, signals, and a watchdog.

Loops call `beat` in every iteration. Without a call for some time, a thread of faulthandler writes
the stack traces of all threads to a file and exits the process. It does not need the interpreter
lock, so that calls that block in a driver or in a network file system are killed as well.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

from preceptor.errors import InputError

RUN_THREADS = 1
"""CPU threads of a run by default: n threads make a run less than n times as fast, and runs of a
study do not wait for each other."""


def core_count(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of cores by the process's affinity and its container's quota, at least one."""
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
    """Number of concurrent jobs that the cores allow, at least one."""
    return max(1, core_count() // threads)


def checked_jobs(jobs: int | None, threads: int, tell: Callable[[str], None]) -> int | None:
    """Number of jobs, limited so that jobs × threads does not exceed the cores."""
    if jobs is None:
        return None
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: must be 1 or more")
    most = job_count(threads)
    if jobs > most:
        tell(f"{jobs} jobs of {threads} threads exceed the {core_count()} cores; using {most} jobs")
    return min(jobs, most)


@contextlib.contextmanager
def bulk_import() -> Iterator[None]:
    """Context for the first import of torch and of what is built on it, without garbage collection.

    Importing makes a million objects that stay; searching them takes a fifth of the time. They are
    exempted from collection for good. For the start of processes of this package only.
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
    before = {key: os.environ[key] for key in values if key in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for key in values:
            os.environ.pop(key, None)
        os.environ.update(before)


def call_in_child(module: str, function: str, *arguments: Any) -> None:
    """Target of a child process: a function by its name, which the parent need not import."""
    belong_to_parent()
    with bulk_import():
        target = getattr(importlib.import_module(module), function)
    target(*arguments)


def belong_to_parent() -> None:
    """Ignore Ctrl-C, which the parent handles, and terminate when the parent terminates."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def handling(signals: tuple[signal.Signals, ...], stop: Callable[..., None]) -> Iterator[None]:
    """Context with a handler of signals, in the main thread."""
    before = {one: signal.signal(one, stop) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


_MARK = "Timeout ("  # first words of faulthandler's output


@dataclass
class _Watch:
    log: Path
    hang_timeout: float
    file: IO[bytes] | None = None
    armed: float = 0.0


_current: _Watch | None = None


@contextlib.contextmanager
def watched(log: Path, hang_timeout: float) -> Iterator[None]:
    """Context in which this process is killed if `beat` is not called for some time."""
    global _current
    if not math.isfinite(hang_timeout):
        yield
        return
    watch = _current = _Watch(log, hang_timeout)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            faulthandler.dump_traceback_later(hang_timeout, exit=True, file=nowhere)
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        _current = None
        if watch.file is not None:
            watch.file.close()
            log.unlink(missing_ok=True)


def beat() -> None:
    """Report progress; cheap enough for every iteration of a loop."""
    watch = _current
    if watch is None:
        return
    now = time.monotonic()
    if watch.file is None:
        watch.log.parent.mkdir(parents=True, exist_ok=True)
        watch.file = watch.log.open("wb")
    elif now - watch.armed < min(1.0, watch.hang_timeout / 10):
        return
    watch.armed = now
    faulthandler.dump_traceback_later(watch.hang_timeout, exit=True, file=watch.file)


def hung(log: Path) -> bool:
    """Whether a log file was written by the watchdog."""
    try:
        with log.open("r", encoding="utf-8", errors="replace") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False
