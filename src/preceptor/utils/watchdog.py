"""Watchdog: kills a process that makes no progress, and writes its stack traces.

Loops call `beat` in every iteration (a training step, a scored batch, a block of masks). Without a
call for the given time, a thread of faulthandler writes the Python stack traces of all threads to a
file and exits the process. It does not need the interpreter lock, so that calls that block in a
driver or in a network file system are killed as well.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
    """Context in which this process is killed if `beat` is not called for some time.

    Args:
        log: File for the stack traces, created at the first call of `beat` and removed at the end.
            A process that hangs before the first call leaves no stack traces.
        hang_timeout: Time without a call, in seconds; infinite = no watchdog.
    """
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
