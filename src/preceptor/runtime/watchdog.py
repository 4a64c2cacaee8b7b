"""A watch over a computation: one that is silent for too long is ended, and leaves its stacks.

Whoever loops calls `beat` once a turn (a training step, a batch scored, a round of masks). Where no
beat is heard for the given time, a thread of faulthandler's writes the Python stacks of all threads
to a file and ends the process; it needs no interpreter lock, so that a call stuck in a driver or in
a network folder is ended as well.
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

_MARK = "Timeout ("  # what faulthandler begins with


@dataclass
class _Watch:
    log: Path
    hang_timeout: float
    file: IO[bytes] | None = None
    armed: float = 0.0


_current: _Watch | None = None


@contextlib.contextmanager
def watched(log: Path, hang_timeout: float) -> Iterator[None]:
    """End this process where no beat is heard for a while.

    Args:
        log: The file that receives the stacks; made at the first beat, and removed at the end.
            Whoever is silent before its first beat is ended without.
        hang_timeout: Seconds; infinite = no watch.
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
    """Something was done; cheap enough for every step of a loop."""
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
    """Whether this file tells of a computation that was silent for too long."""
    try:
        with log.open("r", encoding="utf-8", errors="replace") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False
