"""Worker processes, which can be started before there is anything to do.

A worker takes seconds to import torch and its friends, and so does who starts it: a command starts
its first worker before it imports them itself, and both do so at the same time. Hence nothing heavy
is imported here, and what a worker runs is known here by its name alone.
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
    """A worker process; it ends when its parent does.

    Args:
        process: The operating system's process.
        pipe: Receives an `events.WorkerContext`, then steps, each with whether it has its device
            for itself; sends events.
    """

    process: BaseProcess
    pipe: Connection

    def end(self) -> None:
        """At once; what it was doing is left as it stands on disk."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def start_process(threads: int, gpu: str | None = None) -> Process:
    """Start a worker.

    Args:
        threads: CPU threads of its steps.
        gpu: What it sees of the machine's GPUs, as CUDA_VISIBLE_DEVICES takes it; None = as here.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=call_in_child, args=(*SERVE, theirs), daemon=True)
    seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    with environment_of(OMP_NUM_THREADS=str(threads), **seen):
        process.start()
    theirs.close()
    return Process(process, ours)
