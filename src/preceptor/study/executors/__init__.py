"""Who does the steps of a study: worker processes of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, get_args

from preceptor.errors import InputError
from preceptor.processes import Process
from preceptor.study.draws import Workspaces
from preceptor.study.graph import Step

Engine = Literal["local", "ray"]
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


def check_engine(engine: str, address: str | None) -> None:
    """Refuse an engine that cannot be used, before anything is done.

    Raises:
        InputError: It is not known or not installed, or an address is given to `local`.
    """
    if engine not in get_args(Engine):
        raise InputError(f"--engine {engine}: use {' or '.join(get_args(Engine))}")
    if engine == "ray" and find_spec("ray") is None:
        raise InputError("--engine ray: Ray is not installed; pip install 'preceptor[ray]'")
    if engine != "ray" and address is not None:
        raise InputError(f"--address {address}: it is for --engine ray alone")


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


def open_executor(
    work: Work,
    *,
    engine: Engine = "local",
    jobs: int | None = None,
    runs_per_gpu: int | None = None,
    address: str | None = None,
    early: Process | None = None,
) -> Executor:
    """The executor of a study.

    Args:
        work: What its workers need to know.
        engine: local or ray.
        jobs: Most steps at once; None = what the cores or GPUs allow.
        runs_per_gpu: Steps that share a GPU; None = from the measured peak memory of trainings.
        address: Of the Ray cluster, or auto; None = RAY_ADDRESS, or a Ray on this machine.
        early: A worker process that was started before, for `local`.

    Raises:
        InputError: Ray is not installed or not found, or the cluster lacks what a step needs.
    """
    if engine == "ray":
        from preceptor.study.executors.ray import RayExecutor

        return RayExecutor(work, jobs=jobs, runs_per_gpu=runs_per_gpu, address=address)
    from preceptor.study.executors.local import LocalExecutor

    return LocalExecutor(work, jobs=jobs, runs_per_gpu=runs_per_gpu, early=early)
