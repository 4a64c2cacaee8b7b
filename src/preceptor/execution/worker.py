"""Inside a worker of either executor: a step is done, and how it ended is said in one event."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from preceptor.errors import CrowdedError, HeldError, LeaseLostError, PreceptorError
from preceptor.execution.events import Event, Work
from preceptor.execution.perform import perform
from preceptor.runtime import watchdog
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.progress import silence
from preceptor.study.steps import Step

KEPT_LINES = 200  # of progress, in the log of a step that failed


def serve(pipe: Connection) -> None:
    """Do the steps that come through a pipe, and send events, until the parent is gone."""
    silence()
    try:
        work = pipe.recv()
        pipe.send(Event("ready", ""))
        while True:
            step, alone = pipe.recv()
            pipe.send(carry_out(step, work, pipe.send, alone=alone))
    except (EOFError, OSError):
        return


def carry_out(step: Step, work: Work, say: Callable[[Event], None], *, alone: bool = True) -> Event:
    """Do a step; whatever happens, the last event is returned and not raised.

    Args:
        step: Anything but a selection.
        work: Of the study.
        say: Receives lines of progress.
        alone: Whether nothing else uses its device: only then a training that runs out of memory
            goes on in smaller parts.
    """
    log = log_of(step.id, work.store)
    if watchdog.hung(log):  # tried again by who only saw a dead process
        return Event("failed", step.id, silent(work.patience, step.id))
    lines: deque[str] = deque(maxlen=KEPT_LINES)

    def tell(line: str) -> None:
        lines.append(line)
        say(Event("line", step.id, line))

    try:
        with watchdog.watched(log, work.patience):
            done = perform(step, work.store, work.workspaces, tell, wait=0.0, alone=alone)
        return Event("done" if done else "there", step.id)
    except CrowdedError as error:
        return Event("crowded", step.id, str(error))
    except (HeldError, LeaseLostError) as error:
        return Event("busy", step.id, str(error))
    except Exception as error:
        if not alone and out_of_memory(error):
            return Event("crowded", step.id, "out of memory on a shared device")
        reason = str(error)
        if not isinstance(error, PreceptorError):  # a fault of ours
            reason = f"{type(error).__name__}: {' '.join(reason.split())[:200]}"
        with contextlib.suppress(OSError):  # a full disk has no room for it either
            log.parent.mkdir(parents=True, exist_ok=True)
            told = "".join(f"{line}\n" for line in lines)
            log.write_text(f"{step.title}\n{told}{traceback.format_exc()}", encoding="utf-8")
            reason += f" (see {logged(step.id)})"
    finally:
        _leave_device()
    return Event("failed", step.id, reason)


def _leave_device() -> None:
    """Give back what torch keeps of a GPU between steps: others share it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def keep_reason(step: Step, store: Path, reason: str) -> str:
    """Write the log of a step whose worker could not; returns the reason with where it is."""
    log = log_of(step.id, store)
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"{step.title}\n{reason}\n", encoding="utf-8")
    return f"{reason} (see {logged(step.id)})"


def log_of(identity: str, store: Path) -> Path:
    """The file that says why a step failed."""
    return store / logged(identity)


def logged(identity: str) -> str:
    """The same within the store."""
    return f"failed/{identity}.log"


def silent(patience: float, identity: str) -> str:
    """The reason of a step that hung."""
    told = f"{patience / 60:g} minutes" if patience >= 60 else f"{patience:g} seconds"
    return f"hung: silent for {told}, so it was ended (where it stood: {logged(identity)})"
