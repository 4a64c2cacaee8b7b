"""A training that hangs, as on a network folder whose server is gone."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from preceptor.execution.perform import Event
from preceptor.study.plan import Plan
from preceptor.study.steps import Step
from tests.datasets import squares
from tests.studies import study, walk


@contextmanager
def blocked_training(folder: Path) -> Iterator[tuple[Plan, Step]]:
    """A training whose image nobody else can open: who tries waits in the kernel."""
    config = study(squares(folder / "data"), seeds=1, controls=())
    uncached = config.training.of_run().model_copy(update={"cache": "none"})
    config = config.model_copy(update={"training": uncached})
    plan = walk(config, folder / "store", compute=False)
    step = next(step for step in plan.steps.values() if step.kind == "train")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    blocked = os.open(folder / "data" / "images" / "train-1.png", os.O_RDWR)
    try:
        fcntl.fcntl(blocked, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield plan, step
    finally:
        os.close(blocked)
        signal.signal(signal.SIGIO, before)


def until_it_hangs(
    attempt: Callable[[float], list[Event]], log: Path, patience: float = 3.0
) -> list[Event]:
    """Try with more and more patience, until the training reaches the image that it hangs at."""
    # The kernel lets a process that waits go on after this time, and it would not hang any more.
    most = int(Path("/proc/sys/fs/lease-break-time").read_text()) - 5.0
    while True:
        found = attempt(patience)
        told = log.read_text() if log.is_file() else ""
        if "images.py" in told:
            assert told.startswith("Timeout")
            return found
        assert found[-1].kind == "failed", "it did not hang at all"
        patience = min(2 * patience, most)
