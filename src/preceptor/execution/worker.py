"""Worker of an executor: executes steps and reports how each ended as one event."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Literal

import torch

from preceptor.errors import DeviceFullError, HeldError, LeaseLostError
from preceptor.execution.events import Event, WorkerContext
from preceptor.execution.failure_log import keep_error, log_of, logged
from preceptor.execution.perform import perform
from preceptor.study.steps import Step
from preceptor.utils import process
from preceptor.utils.memory import keep_freed_memory, out_of_memory
from preceptor.utils.text import silence

KEPT_LINES = 200  # lines of progress in the log of a failed step


def serve(pipe: Connection) -> None:
    """Execute the steps received through a pipe and send events, until the parent terminates."""
    silence()
    keep_freed_memory()
    try:
        context = pipe.recv()
        pipe.send(Event("ready", ""))
        while True:
            step, exclusive = pipe.recv()
            pipe.send(carry_out(step, context, pipe.send, exclusive=exclusive))
    except (EOFError, OSError):
        return


def carry_out(
    step: Step,
    context: WorkerContext,
    send: Callable[[Event], None],
    *,
    exclusive: bool = True,
) -> Event:
    """Execute a step and return its last event; no error is raised.

    Args:
        step: Any step except a selection.
        context: Data and settings of the study.
        send: Function that receives all other events.
        exclusive: Whether no other step uses the device; only then a training that runs out of
            memory continues with micro-batches.
    """
    log = log_of(step.id, context.store)
    if process.hung(log):  # retried by an executor that saw only that the process died
        return Event("failed", step.id, silent(context.hang_timeout, step.id))
    lines: deque[str] = deque(maxlen=KEPT_LINES)

    def report(kind: Literal["epoch", "message"], line: str) -> None:
        lines.append(line)
        send(Event(kind, step.id, line))

    try:
        with process.watched(log, context.hang_timeout):
            done = perform(
                step,
                context.store,
                context.workspaces,
                partial(report, "message"),
                partial(report, "epoch"),
                wait=0.0,
                exclusive=exclusive,
            )
        return Event("done" if done else "already_done", step.id)
    except DeviceFullError as error:
        return Event("out_of_memory", step.id, str(error))
    except (HeldError, LeaseLostError) as error:
        return Event("held", step.id, str(error))
    except Exception as error:
        if not exclusive and out_of_memory(error):
            return Event("out_of_memory", step.id, "out of memory on a shared device")
        return Event("failed", step.id, keep_error(step, context.store, error, lines))
    finally:
        _leave_device()


def _leave_device() -> None:
    """Release torch's cached GPU memory between steps, since others share the GPU."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def silent(hang_timeout: float, identity: str) -> str:
    """Reason of the failure of a step that hung."""
    told = f"{hang_timeout / 60:g} minutes" if hang_timeout >= 60 else f"{hang_timeout:g} seconds"
    return f"hung: silent for {told}, so it was ended (where it stood: {logged(identity)})"
