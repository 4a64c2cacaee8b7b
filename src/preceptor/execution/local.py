"""Choice of an executor, and execution by worker processes of this machine.

A worker computes one step at a time, on one GPU if there are any. It ends with its parent; one that
dies is replaced, and its step is retried once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Literal, get_args

import torch

from preceptor.errors import InputError
from preceptor.execution.perform import (
    HANG_TIMEOUT,
    Event,
    Executor,
    WorkerContext,
    keep_reason,
    log_of,
)
from preceptor.execution.process import start_worker
from preceptor.study.steps import Step
from preceptor.utils.process import checked_jobs, hung, job_count

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class ExecutorOptions:
    """How steps are executed; None = as the cores or the cluster allow."""

    engine: Engine = "local"
    jobs: int | None = None  # maximum number of concurrent steps
    runs_per_gpu: int | None = None  # None = 1
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
    jobs, runs_per_gpu = options.jobs, options.runs_per_gpu or 1
    if options.engine == "ray":
        from preceptor.execution.ray import RayExecutor

        return RayExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, address=options.address)

    return LocalExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    gpu: str | None
    step: Step | None = None
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
        runs_per_gpu: int = 1,
        gpus: list[str] | None = None,
    ) -> None:
        self._context = context
        self._gpus = _visible_gpus(context.device) if gpus is None else gpus
        self._jobs, self._each = jobs or job_count(context.threads), runs_per_gpu
        self._workers: list[_Worker] = []
        self._deaths: dict[str, int] = {}

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
        idle = [worker for worker in self._workers if worker.step is None and worker.gpu == gpu]
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
            yield event

    def close(self) -> None:
        """Stop all workers; the files of their steps are kept."""
        for worker in self._workers:
            worker.process.kill()
        for worker in list(self._workers):
            self._end(worker)

    def _room_on(self, gpu: str) -> int:
        """Number of steps that a GPU can take now."""
        busy = [worker for worker in self._workers if worker.step is not None and worker.gpu == gpu]
        return max(0, self._each - len(busy))

    def _give(self, worker: _Worker, step: Step) -> None:
        worker.step = step
        try:
            worker.pipe.send(step)
        except OSError:  # it died idle
            self._end(worker)
            self._give(self._spawn(worker.gpu), step)

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
        if hung(log_of(step, self._context.store)):
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
