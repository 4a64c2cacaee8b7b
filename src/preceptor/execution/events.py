"""Events of steps, and the interface of an executor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from preceptor.study.steps import Step
from preceptor.study.workspaces import Workspaces

Kind = Literal[
    "ready",
    "assigned",
    "epoch",
    "message",
    "done",
    "already_done",
    "held",
    "out_of_memory",
    "failed",
]

HANG_TIMEOUT = 30.0
"""Default minutes without a training step or a scored batch after which a step counts as hung."""


@dataclass(frozen=True)
class Event:
    """Event of one step.

    Args:
        kind: assigned (a worker has started the step), epoch (summary of an epoch of a training),
            message (a line of text), or the end of the step: done, already_done (finished by
            another process), held (another process is computing it), out_of_memory (its shared
            device has not enough memory), failed. The first event of a worker, ready, belongs to no
            step.
        step: Id of the step.
        text: The machine, the line or the reason.
    """

    kind: Kind
    step: str
    text: str = ""

    @property
    def ends(self) -> bool:
        """Whether the executor has finished with the step."""
        return self.kind not in ("ready", "assigned", "epoch", "message")


@dataclass(frozen=True)
class WorkerContext:
    """Data and settings that every worker of a study needs.

    Args:
        workspaces: Manifests, opened separately by each worker.
        store: Folder of runs, maps and evaluations; on a cluster, accessible from all machines.
        threads: CPU threads of a step.
        device: auto, cpu or cuda.
        hang_timeout: Seconds without progress after which a step is killed.
    """

    workspaces: Workspaces
    store: Path
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    hang_timeout: float = 60 * HANG_TIMEOUT


class Executor(Protocol):
    """Executes steps, several at a time; each step ends with one event."""

    @property
    def free(self) -> int:
        """Number of steps that can be started now."""
        ...

    def start(self, step: Step) -> None:
        """Start a step."""
        ...

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the next events; returns without any after `timeout` seconds."""
        ...

    def close(self) -> None:
        """Stop all running steps; their files are kept."""
        ...
