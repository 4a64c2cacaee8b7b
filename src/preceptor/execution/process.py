"""Worker processes, which end with their parent.

On Linux, workers of one thread and without a GPU are forked by the fork server of multiprocessing,
which has imported torch: they start in milliseconds and share the memory of all libraries.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from preceptor.utils.process import call_in_child, environment_of

_WORKER = "preceptor.execution.perform"  # module of the function `serve`
# One thread: memory that Arrow's allocator frees is returned by the thread that frees it.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


def import_early(threads: int) -> None:
    """Start the fork server, which imports torch while this process does so itself."""
    if not _is_forked(threads, None):
        return
    forkserver.set_forkserver_preload([_WORKER])
    # Ctrl-C is handled by the parent, also while the server imports. Started in between, the
    # resource tracker would unblock it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment_of(**_ENVIRONMENT):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(threads: int, gpu: str | None = None) -> tuple[BaseProcess, Connection]:
    """Start a worker; returns its process and this end of its pipe, see `perform.serve`.

    `gpu` is the value of CUDA_VISIBLE_DEVICES in the worker; None = unchanged.
    """
    own = {"OMP_NUM_THREADS": str(threads)}
    if gpu is not None:
        own["CUDA_VISIBLE_DEVICES"] = gpu
    forked = _is_forked(threads, gpu)
    context: Any = multiprocessing.get_context("forkserver" if forked else "spawn")
    ours, theirs = context.Pipe()
    with environment_of(**own):
        arguments = (_WORKER, "serve", theirs, dict(os.environ))
        process = context.Process(target=call_in_child, args=arguments, daemon=True)
        for left in reversed(range(100)):
            if forked:
                import_early(threads)  # unless the server runs: it may have been killed
            try:
                process.start()
                break
            # A killed server, which the system still counts as running, or which ends just now.
            except (ConnectionError, EOFError):
                if not left:
                    raise
                time.sleep(0.05)
    theirs.close()
    return process, ours


def _is_forked(threads: int, gpu: str | None) -> bool:
    """Whether a worker is forked: elsewhere the system's libraries start threads of their own."""
    short = len(tempfile.gettempdir()) < 70  # a socket of the server has 107 bytes
    return sys.platform == "linux" and threads == 1 and gpu is None and short
