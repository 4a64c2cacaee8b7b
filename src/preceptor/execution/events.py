"""Events, and the interface of an executor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from preceptor.study.steps import Step
from preceptor.study.workspaces import Workspaces

Kind = Literal["ready", "place", "line", "done", "there", "busy", "crowded", "failed"]

PATIENCE = 30.0
"""Minutes without a training step or a batch scored after which a step counts as hung."""


@dataclass(frozen=True)
class Event:
    """What is heard of a step.

    Args:
        kind: place (where it is done), line (progress), and at its end done, there (another process
            has done it), busy (another process does it), crowded (the device that it shared with
            others had no room for it) or failed; ready, of a worker, that it has started.
        step: The step's id.
        text: The place, the line or the reason.
    """

    kind: Kind
    step: str
    text: str = ""

    @property
    def ends(self) -> bool:
        """Whether the step is no longer being done."""
        return self.kind not in ("ready", "place", "line")


@dataclass(frozen=True)
class Work:
    """What every worker of a study needs to know.

    Args:
        workspaces: The manifests, which each worker opens for itself.
        store: Of runs, maps and evaluations; on a cluster a folder that all machines see.
        threads: CPU threads of a step.
        device: auto, cpu or cuda.
        patience: Seconds of silence after which a step counts as hung.
    """

    workspaces: Workspaces
    store: Path
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    patience: float = 60 * PATIENCE


class Executor(Protocol):
    """Does steps, several at a time; a step that it was given ends with one event."""

    @property
    def free(self) -> int:
        """Steps that it takes now."""
        ...

    def start(self, step: Step) -> None:
        """Take a step."""
        ...

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for what is heard next; after `timeout` seconds, nothing."""
        ...

    def close(self) -> None:
        """End what is being done; what it left on disk stays."""
        ...
