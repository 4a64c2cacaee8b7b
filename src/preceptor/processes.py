"""Worker processes, which can be started before there is anything to do.

A worker takes seconds to import torch and its friends, and so does who starts it: a command starts
its first worker before it imports them itself, and both do so at the same time. Hence nothing heavy
is imported here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess


@dataclass
class Process:
    """A worker process; it ends when its parent does.

    Args:
        process: Of the system.
        pipe: Takes first what all steps need to know (`executors.Work`), then steps, each with
            whether it is alone on its device; gives events.
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
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    with environment_of(OMP_NUM_THREADS=str(threads), **seen):
        process.start()
    theirs.close()
    return Process(process, ours)


@contextlib.contextmanager
def environment_of(**values: str) -> Iterator[None]:
    """Environment variables of the processes that are started in the block."""
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


def _serve(pipe: Connection) -> None:
    """A worker's life: steps in, events out, until the parent is gone."""
    belong_to_parent()
    import preceptor.study.work  # noqa: F401 - now, and not when the first step has come
    from preceptor.progress import silence
    from preceptor.study.executors import Event
    from preceptor.study.executors.worker import carry_out

    silence()
    try:
        work = pipe.recv()
        pipe.send(Event("ready", ""))
        while True:
            step, alone = pipe.recv()
            pipe.send(carry_out(step, work, pipe.send, alone=alone))
    except (EOFError, OSError):
        return


def belong_to_parent() -> None:
    """Leave Ctrl-C to the parent of this process, and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    """End this process when its parent ends."""
    wait([sentinel])
    os._exit(1)
