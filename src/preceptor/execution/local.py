"""Local execution by worker processes, each of which computes one step at a time.

A worker opens a manifest once. It terminates with its parent in any case, so that a killed study
leaves no processes; a worker that dies is replaced, and its step is retried once. On a machine with
GPUs each worker uses one of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import torch

from preceptor.execution.events import Event, WorkerContext
from preceptor.execution.failure_log import keep_reason, log_of
from preceptor.execution.gpu_sharing import GpuPacking
from preceptor.execution.process import Handle, Starter, start_process
from preceptor.execution.worker import silent
from preceptor.study.steps import Step
from preceptor.utils.process import hung, job_count


@dataclass
class _Worker:
    process: Handle
    pipe: Connection
    gpu: str | None
    step: Step | None = None
    sharing: int = 1  # number of steps per GPU when the step was started
    ready: bool = False  # the worker is ready


class LocalExecutor:
    """Worker processes on this machine.

    Args:
        context: Data and settings of the study.
        jobs: Maximum number of concurrent steps; None = cores ÷ threads of a step, on GPUs by their
            memory.
        runs_per_gpu: Number of steps per GPU; None = from the measured peak memory of trainings.
        gpus: GPUs as in CUDA_VISIBLE_DEVICES; None = all visible GPUs.
        early: Starter of workers of the same threads; used without GPUs.
    """

    def __init__(
        self,
        context: WorkerContext,
        *,
        jobs: int | None = None,
        runs_per_gpu: int | None = None,
        gpus: list[str] | None = None,
        early: Starter | None = None,
    ) -> None:
        self._context = context
        self._gpus = _visible_gpus(context.device) if gpus is None else gpus
        slots = job_count(context.threads)
        self._jobs = slots if jobs is None else jobs
        each = max(1, slots // len(self._gpus)) if self._gpus else 1
        self.packing = GpuPacking(runs_per_gpu, each)
        self._workers: list[_Worker] = []
        self._deaths: dict[str, int] = {}
        self._starter = early
        if early is not None and self._gpus:  # its workers would see all of them
            early.end()

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
        log = log_of(step.id, self._context.store)
        if hung(log):  # log of an earlier failure, which may not recur
            log.unlink(missing_ok=True)
        gpu = max(self._gpus, key=self._room_on) if self._gpus else None
        idle = [one for one in self._workers if one.step is None and one.gpu == gpu]
        self._give(idle[0] if idle else self._spawn(gpu), step)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the next events of the workers.

        Args:
            timeout: Maximum waiting time in seconds; None = unlimited.
        """
        busy = {worker.pipe: worker for worker in self._workers if worker.step is not None}
        for pipe in wait(list(busy), timeout):
            worker = busy[pipe]  # type: ignore[index]
            step = worker.step
            assert step is not None
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._died(worker, step)
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
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()
        if self._starter is not None:
            self._starter.end()

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
            self._give(self._replace(worker), step)

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

    def _died(self, worker: _Worker, step: Step) -> Iterator[Event]:
        self._deaths[step.id] = self._deaths.get(step.id, 0) + 1
        worker.process.join()
        code = worker.process.exitcode
        if (
            not worker.ready and code is not None and code >= 0
        ):  # the step of a killed worker is retried
            self._workers.remove(worker)
            worker.pipe.close()
            reason = (
                f"a worker process cannot start (exit code {code}); a script that calls run_study "
                'does so under `if __name__ == "__main__":`'
            )
            yield Event("failed", step.id, reason)
            return
        fresh = self._replace(worker)
        if hung(log_of(step.id, self._context.store)):
            yield Event("failed", step.id, silent(self._context.hang_timeout, step.id))
        elif self._deaths[step.id] == 1:
            self._give(fresh, step)
            yield Event("message", step.id, f"its worker died{_exit(code)}; tried once more")
        else:
            reason = f"its worker died twice{_exit(code)}"
            yield Event("failed", step.id, keep_reason(step, self._context.store, reason))

    def _replace(self, worker: _Worker) -> _Worker:
        self._workers.remove(worker)
        worker.pipe.close()
        return self._spawn(worker.gpu)

    def _spawn(self, gpu: str | None) -> _Worker:
        if gpu is None:
            self._starter = self._starter or Starter(self._context.threads)
            process = self._starter.start()
        else:
            process = start_process(self._context.threads, gpu)
        worker = _Worker(process.process, process.pipe, gpu)
        with contextlib.suppress(OSError):  # it died; `events` finds that out
            worker.pipe.send(self._context)
        self._workers.append(worker)
        return worker


def _exit(code: int | None) -> str:
    """Exit code of a worker in brackets; "" if its fork server died before it."""
    if code is None:
        return ""
    memory = "; it was killed, perhaps for want of memory" if code == -9 else ""
    return f" (exit code {code}{memory})"


def jobs_at_first(device: str, threads: int) -> int:
    """Number of concurrent steps with which a study starts: one per GPU, or as the cores allow.

    Args:
        device: auto, cpu or cuda.
        threads: CPU threads of a step.
    """
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
