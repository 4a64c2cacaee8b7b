"""Worker processes, which can be started in advance.

Importing torch takes seconds, in the worker and in its parent: a command starts its first worker
before its own import, so that both run at the same time. Therefore this module has no heavy
imports, and the target of the worker is given by name.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from preceptor.runtime.child_process import call_in_child, environment_of

SERVE = ("preceptor.execution.worker", "serve")
"""Module and function that a worker process runs."""


@dataclass
class Process:
    """Worker process, which terminates with its parent.

    Args:
        process: Process of the operating system.
        pipe: Pipe that receives an `events.WorkerContext`, then steps, each with whether it has
            exclusive use of its device; sends events.
    """

    process: BaseProcess
    pipe: Connection

    def end(self) -> None:
        """Kill the worker; the files of its step are kept."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def start_process(threads: int, gpu: str | None = None) -> Process:
    """Start a worker process.

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
