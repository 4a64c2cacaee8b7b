"""Executors of steps: what they share, the choice of one, and worker processes of this machine.

A worker computes one step at a time and opens a manifest once. It ends with its parent in any case,
so that a killed study leaves no processes; a worker that dies is replaced, and its step is retried
once. On a machine with GPUs each worker uses one of them.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch

from preceptor.errors import InputError, PreceptorError
from preceptor.execution.process import start_worker
from preceptor.study.steps import Step
from preceptor.study.workspaces import Workspaces
from preceptor.utils.files import failed_write
from preceptor.utils.process import checked_jobs, hung, job_count
from preceptor.utils.results import read_record

Engine = Literal["local", "ray"]
HANG_TIMEOUT = 30.0
"""Default minutes without a training step or a scored batch after which a step counts as hung."""
# Usable share of a GPU's memory; the rest is for fragmentation of the allocator.
USABLE = 0.9
# Memory of a process on a GPU besides its tensors, in bytes: context, kernels and libraries.
OVERHEAD = 600 * 2**20

Kind = Literal[
    "ready",  # a worker can take steps; belongs to no step
    "assigned",  # a machine has started the step
    "epoch",  # summary of an epoch of a training
    "message",
    "done",
    "already_done",  # finished by another process
    "held",  # another process is computing it
    "out_of_memory",  # its shared device has not enough memory
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

    def log_of(self, step: Step) -> Path:
        """Log of a failed step."""
        return log_of(step, self.store)

    def forget_hang(self, step: Step) -> None:
        """Remove the log of an earlier hang, which may not recur."""
        if hung(log := self.log_of(step)):
            log.unlink(missing_ok=True)

    def hang_event(self, step: Step) -> Event:
        """Failure of a step that hung."""
        seconds = self.hang_timeout
        told = f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
        log = self.log_of(step).relative_to(self.store)
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
    return f"{reason} (see {log.relative_to(store)})"


@dataclass(frozen=True)
class ExecutorOptions:
    """How steps are executed; None = as the cores, the GPUs' memory or the cluster allow."""

    engine: Engine = "local"
    jobs: int | None = None  # maximum number of concurrent steps
    runs_per_gpu: int | None = None
    address: str | None = None  # of the Ray cluster, or auto; None = RAY_ADDRESS, or a local Ray
    hang_timeout: float = HANG_TIMEOUT  # minutes without progress

    def checked(self, threads: int, tell: Callable[[str], None]) -> ExecutorOptions:
        """Options with at most as many jobs as the cores allow; an InputError if unusable."""
        if self.engine not in get_args(Engine):
            raise InputError(f"--engine {self.engine}: use {' or '.join(get_args(Engine))}")
        if self.engine == "ray" and find_spec("ray") is None:
            raise InputError(
                "--engine ray: Ray is not installed; pip install '.[ray]' in the source folder"
            )
        if self.engine == "ray":
            return self
        if self.address is not None:
            raise InputError(
                f"--address {self.address}: needs --engine ray; add it, or remove --address"
            )
        return replace(self, jobs=checked_jobs(self.jobs, threads, tell))


def open_executor(context: WorkerContext, options: ExecutorOptions) -> Executor:
    """Create the executor of a study; an InputError if a cluster is missing or lacks resources."""
    jobs, runs_per_gpu = options.jobs, options.runs_per_gpu
    if options.engine == "ray":
        from preceptor.execution.ray import RayExecutor

        return RayExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, address=options.address)

    return LocalExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu)


@dataclass
class GpuPacking:
    """Number of concurrent steps on one GPU.

    A study starts with one; the peak memory of its finished trainings then determines the number.
    If a later training runs out of memory, fewer steps share a GPU from then on.
    """

    fixed: int | None  # number set by the user; None = measured
    most: int  # maximum number by the cores of one GPU
    _peak: int = 0
    _room: int = 0
    _limit: int | None = None

    @property
    def runs(self) -> int:
        """Number of steps per GPU."""
        if self.fixed is not None:
            return self.fixed if self._limit is None else min(self.fixed, self._limit)
        if not self._peak:
            return 1
        fit = int(USABLE * self._room / (self._peak + OVERHEAD))
        return max(1, min(fit, self.most, fit if self._limit is None else self._limit))

    def learn(self, record: dict[str, Any]) -> None:
        """Update the estimate from the record of a finished training on a GPU."""
        if record.get("device_memory"):
            self._peak = max(self._peak, int(record["peak_memory"]))
            self._room = int(record["device_memory"])

    def learn_from(self, folder: Path) -> None:
        """Update the estimate from a run folder; an unreadable one is ignored."""
        with contextlib.suppress(OSError, ValueError, KeyError, InputError):
            self.learn(read_record(folder))

    def out_of_memory(self, among: int) -> None:
        """Reduce the number after a step ran out of memory on a GPU shared by this many."""
        fewer = max(1, among - 1)
        self._limit = fewer if self._limit is None else min(self._limit, fewer)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    gpu: str | None
    step: Step | None = None
    sharing: int = 1  # number of steps per GPU when the step was started
    ready: bool = False


class LocalExecutor:
    """Worker processes on this machine; see `ExecutorOptions` for the arguments.

    `gpus` are named as in CUDA_VISIBLE_DEVICES; None = all visible GPUs.
    """

    def __init__(
        self,
        context: WorkerContext,
        *,
        jobs: int | None = None,
        runs_per_gpu: int | None = None,
        gpus: list[str] | None = None,
    ) -> None:
        self._context = context
        self._gpus = _visible_gpus(context.device) if gpus is None else gpus
        slots = job_count(context.threads)
        self._jobs = jobs or slots
        each = max(1, slots // len(self._gpus)) if self._gpus else 1
        self.packing = GpuPacking(runs_per_gpu, each)
        self._workers: list[_Worker] = []
        self._deaths: dict[str, int] = {}

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    @property
    def free(self) -> int:
        """Number of steps that can be started now."""
        slots = self._jobs - sum(worker.step is not None for worker in self._workers)
        if self._gpus:
            slots = min(slots, sum(map(self._room_on, self._gpus)))
        return max(0, slots)

    def start(self, step: Step) -> None:
        """Give a step to an idle or a new worker, on the GPU with the fewest steps."""
        self._context.forget_hang(step)
        gpu = max(self._gpus, key=self._room_on) if self._gpus else None
        idle = [one for one in self._workers if one.step is None and one.gpu == gpu]
        self._give(idle[0] if idle else self._spawn(gpu), step)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the next events of the workers, at most `timeout` seconds."""
        busy = {worker.pipe: worker for worker in self._workers if worker.step is not None}
        for pipe in wait(list(busy), timeout):
            worker = busy[pipe]  # type: ignore[index]
            step = worker.step
            assert step is not None
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, OSError):
                yield self._died(worker, step)
                continue
            if event.kind == "ready":
                worker.ready = True
                continue
            if event.ends:
                worker.step = None
                self._learn(worker, step, event)
            yield event

    def close(self) -> None:
        """Stop all workers; the files of their steps are kept."""
        for worker in self._workers:
            worker.process.kill()
        for worker in list(self._workers):
            self._end(worker)

    def _room_on(self, gpu: str) -> int:
        """Number of steps that a GPU can take now; none beside a step with exclusive use."""
        busy = [one for one in self._workers if one.step is not None and one.gpu == gpu]
        if any(one.sharing == 1 for one in busy):
            return 0
        return max(0, self.packing.runs - len(busy))

    def _give(self, worker: _Worker, step: Step) -> None:
        worker.step = step
        worker.sharing = 1 if worker.gpu is None else self.packing.runs
        try:
            worker.pipe.send((step, worker.sharing == 1))
        except OSError:  # it died idle
            self._end(worker)
            self._give(self._spawn(worker.gpu), step)

    def _learn(self, worker: _Worker, step: Step, event: Event) -> None:
        """Update the GPU packing from a finished training."""
        if worker.gpu is None:
            return
        if event.kind == "out_of_memory":
            self.packing.out_of_memory(worker.sharing)
            self._end(worker)  # an idle process uses memory as well
        elif event.kind == "done" and step.kind == "train":
            self.packing.learn_from(step.folder(self._context.store))

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)

    def _died(self, worker: _Worker, step: Step) -> Event:
        self._deaths[step.id] = self._deaths.get(step.id, 0) + 1
        worker.process.join()
        code = worker.process.exitcode or 0
        self._end(worker)
        # The step of a killed worker is retried; 255: the fork server was killed as well.
        if not worker.ready and 0 <= code < 255:
            reason = (
                f"a worker process cannot start (exit code {code}); a script that calls run_study "
                'does so under `if __name__ == "__main__":`'
            )
            return Event("failed", step.id, reason)
        fresh = self._spawn(worker.gpu)
        if hung(self._context.log_of(step)):
            return self._context.hang_event(step)
        memory = "; it was killed, perhaps because memory ran out" if code == -9 else ""
        if self._deaths[step.id] == 1:
            self._give(fresh, step)
            text = f"its worker died (exit code {code}{memory}); tried once more"
            return Event("message", step.id, text)
        reason = f"its worker died twice (exit code {code}{memory})"
        return Event("failed", step.id, keep_reason(step, self._context.store, reason))

    def _spawn(self, gpu: str | None) -> _Worker:
        worker = _Worker(*start_worker(self._context.threads, gpu), gpu)
        with contextlib.suppress(OSError):  # it died; `events` finds that out
            worker.pipe.send(self._context)
        self._workers.append(worker)
        return worker


def jobs_at_first(device: str, threads: int) -> int:
    """Number of concurrent steps with which a study starts: one per GPU, or as the cores allow."""
    gpus = len(_visible_gpus(device))
    return min(gpus, job_count(threads)) if gpus else job_count(threads)


def _visible_gpus(device: str) -> list[str]:
    """GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    if device == "cpu" or not torch.cuda.device_count():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]
