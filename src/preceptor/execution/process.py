"""Worker processes, which can be started in advance.

Importing torch takes seconds, in the worker and in its parent: a command starts its first process
before its own import, so that both run at the same time. Therefore this module has no heavy
imports, and the target of the worker is given by name.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from preceptor.execution.fork_server import AVAILABLE, ForkServer, ForkServerError
from preceptor.utils.process import call_in_child, environment_of

SERVE = ("preceptor.execution.worker", "serve")
"""Module and function that a worker process runs."""


class Handle(Protocol):
    """Process of the operating system: a `multiprocessing.Process`, or a `ForkedProcess`."""

    @property
    def pid(self) -> int | None:
        """Process id."""

    @property
    def exitcode(self) -> int | None:
        """Exit code, or minus the signal that ended the process; None = unknown."""

    def kill(self) -> None:
        """Kill the process."""

    def join(self) -> None:
        """Wait for the end of the process."""


@dataclass
class Process:
    """Worker process, which terminates with its parent.

    Args:
        process: Process of the operating system.
        pipe: Pipe that receives an `events.WorkerContext`, then steps, each with whether it has
            exclusive use of its device; sends events.
    """

    process: Handle
    pipe: Connection

    def end(self) -> None:
        """Kill the worker; the files of its step are kept."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Starter:
    """Starts the workers of a study, the first of them in advance.

    Workers of one thread and without a GPU are forked by a server, which alone imports torch;
    others import it themselves.

    Args:
        threads: CPU threads of a step.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._server: ForkServer | None = None
        self._first: Process | None = None
        if AVAILABLE and threads == 1:
            self._server = ForkServer(SERVE)
        else:
            self._first = start_process(threads)

    def start(self) -> Process:
        """Start a worker."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._server is not None:
            try:
                return Process(*self._server.fork())
            except ForkServerError:
                self._server.end()
                self._server = None
        return start_process(self._threads)

    def end(self) -> None:
        """End what was started in advance; workers are ended by who has started them."""
        if self._first is not None:
            self._first.end()
        if self._server is not None:
            self._server.end()
        self._first = self._server = None


def start_process(threads: int, gpu: str | None = None) -> Process:
    """Start a worker process that imports torch itself.

    Args:
        threads: CPU threads of its steps.
        gpu: Value of CUDA_VISIBLE_DEVICES in the worker; None = unchanged.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=call_in_child, args=(*SERVE, theirs), daemon=True)
    seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    with environment_of(OMP_NUM_THREADS=str(threads), **seen):
        process.start()
    theirs.close()
    return Process(process, ours)
