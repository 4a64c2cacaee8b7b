"""Local execution: worker processes, one step at a time each.

A worker imports torch and opens the manifest once. It ends when its parent does, however that
dies, so a killed study leaves no process behind; a worker that dies is replaced, and its step is
tried once more.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from preceptor.errors import HeldError, LeaseLostError, PreceptorError
from preceptor.study.draws import Workspaces
from preceptor.study.graph import Step


@dataclass(frozen=True)
class Event:
    """What a worker reports: "line" (progress of a step), "done", "there" (another process has done
    it), "busy" (another process does it) or "failed" (with the reason).

    "ready", once, says that the worker has started.
    """

    kind: str
    step: str
    text: str = ""


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    step: Step | None = None
    ready: bool = False  # it has started and can work


class LocalExecutor:
    """N worker processes on this machine.

    Args:
        jobs: Workers.
        threads: CPU threads of each.
        workspaces: The manifests, which each worker opens for itself.
        store: Of results.
    """

    def __init__(self, jobs: int, threads: int, workspaces: Workspaces, store: Path) -> None:
        self._jobs, self._threads = jobs, threads
        self._arguments = (workspaces, str(store))
        self._workers: list[_Worker] = []
        self._deaths: dict[str, int] = {}

    @property
    def free(self) -> int:
        """Steps that can be started now."""
        return self._jobs - sum(worker.step is not None for worker in self._workers)

    def start(self, step: Step) -> None:
        """Give a step to an idle worker, started if need be."""
        worker = next((worker for worker in self._workers if worker.step is None), None)
        if worker is None:
            worker = self._spawn()
        worker.step = step
        try:
            worker.pipe.send(step)
        except OSError:  # it died idle
            self._replace(worker).pipe.send(step)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the workers' next reports.

        Args:
            timeout: Seconds after which nothing is returned; None waits.
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
            if event.kind != "line":
                worker.step = None
            yield event

    def close(self) -> None:
        """End all workers; what they were doing is left as it stands on disk."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _died(self, worker: _Worker, step: Step) -> Iterator[Event]:
        self._deaths[step.id] = self._deaths.get(step.id, 0) + 1
        worker.process.join()
        code = worker.process.exitcode
        if not worker.ready and code is not None and code >= 0:  # killed, it may start yet
            self._workers.remove(worker)
            worker.pipe.close()
            reason = (
                f"a worker process cannot start (exit code {code}); a script that calls run_study "
                'does so under `if __name__ == "__main__":`'
            )
            yield Event("failed", step.id, reason)
            return
        fresh = self._replace(worker)
        if self._deaths[step.id] == 1:
            fresh.step = step
            fresh.pipe.send(step)
            yield Event("line", step.id, f"its worker died (exit code {code}); tried once more")
        else:
            memory = "; it was killed, perhaps for want of memory" if code == -9 else ""
            reason = f"its worker died twice (exit code {code}{memory})"
            yield Event("failed", step.id, reason)

    def _replace(self, worker: _Worker) -> _Worker:
        self._workers.remove(worker)
        worker.pipe.close()
        return self._spawn()

    def _spawn(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        with _environment(OMP_NUM_THREADS=str(self._threads)):
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _serve(pipe: Connection, workspaces: Workspaces, store: str) -> None:
    """A worker's life: steps in, events out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    from preceptor.progress import silence
    from preceptor.study.work import perform

    silence()
    pipe.send(Event("ready", ""))
    while True:
        try:
            step: Step = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            done = perform(
                step,
                Path(store),
                workspaces,
                lambda line, step=step: pipe.send(Event("line", step.id, line)),  # type: ignore[misc]
                wait=0.0,
            )
            pipe.send(Event("done" if done else "there", step.id))
        except (HeldError, LeaseLostError) as error:
            pipe.send(Event("busy", step.id, str(error)))
        except PreceptorError as error:
            pipe.send(Event("failed", step.id, str(error)))
        except Exception as error:  # a fault of ours: kept whole beside the store, told in a line
            log = Path(store) / "failed" / f"{step.id}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(traceback.format_exc())
            reason = " ".join(str(error).split())[:200]
            pipe.send(Event("failed", step.id, f"{type(error).__name__}: {reason} (see {log})"))


def _follow(sentinel: int) -> None:
    """End this process when its parent ends."""
    wait([sentinel])
    os._exit(1)
