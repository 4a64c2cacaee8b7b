"""What executors share: events of steps, settings of workers, logs of failures."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from preceptor.errors import PreceptorError
from preceptor.study.steps import Step
from preceptor.study.workspaces import Workspaces
from preceptor.utils.files import failed_write
from preceptor.utils.process import hung

HANG_TIMEOUT = 30.0
"""Default minutes without a training step or a scored batch after which a step counts as hung."""

Kind = Literal[
    "ready",  # a worker can take steps; belongs to no step
    "assigned",  # a machine has started the step
    "epoch",  # summary of an epoch of a training
    "message",
    "done",
    "already_done",  # finished by another process
    "held",  # another process is computing it
    "failed",
]


@dataclass(frozen=True)
class Event:
    """Event of one step; `text` is the machine, the line or the reason."""

    kind: Kind
    step: str  # id
    text: str = ""

    @property
    def ends(self) -> bool:
        """Whether the executor has finished with the step."""
        return self.kind not in ("ready", "assigned", "epoch", "message")


@dataclass(frozen=True)
class WorkerContext:
    """Data and settings that every worker of a study needs."""

    workspaces: Workspaces  # opened separately by each worker
    store: Path  # folder of runs, maps and evaluations; accessible from all machines
    threads: int = 1  # of a step
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    hang_timeout: float = 60 * HANG_TIMEOUT  # seconds without progress that end a step

    def forget_hang(self, step: Step) -> None:
        """Remove the log of an earlier hang, which may not recur."""
        if hung(log := log_of(step, self.store)):
            log.unlink(missing_ok=True)

    def hang_event(self, step: Step) -> Event:
        """Failure of a step that hung."""
        seconds = self.hang_timeout
        told = f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
        log = log_of(step, self.store).relative_to(self.store.parent)
        text = f"hung: silent for {told}, so it was ended (where it stood: {log})"
        return Event("failed", step.id, text)


class Executor(Protocol):
    """Executes steps, several at a time; each step ends with one event."""

    @property
    def free(self) -> int:
        """Number of steps that can be started now."""

    def start(self, step: Step) -> None:
        """Start a step."""

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the next events; returns without any after `timeout` seconds."""

    def close(self) -> None:
        """Stop all running steps; their files are kept."""


def log_of(step: Step, store: Path) -> Path:
    """Log of a failed step."""
    return store / "failed" / f"{step.id}.log"


def keep_error(step: Step, store: Path, error: Exception, lines: Iterable[str] = ()) -> str:
    """Write the log of a failed step, with its last lines; returns the reason in one line."""
    reason = str(error)
    if isinstance(error, OSError):
        reason = failed_write(error, store if step.kind == "select" else step.folder(store))
    elif not isinstance(error, PreceptorError):  # an unexpected error
        reason = f"{type(error).__name__}: {' '.join(reason.split())[:200]}"
    text = [*(f"{line}\n" for line in lines), *traceback.format_exception(error)]
    return keep_reason(step, store, reason, "".join(text))


def keep_reason(step: Step, store: Path, reason: str, text: str = "") -> str:
    """Write the log of a failed step; returns the reason, with the path of the log."""
    log = log_of(step, store)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"{step.title}\n{text or reason}\n", encoding="utf-8")
    except OSError:  # the log cannot be written on a full disk either
        return reason
    return f"{reason} (see {log.relative_to(store.parent)})"
