"""Load on other cores during a measurement whose result is to hold while they compute, too.

Two threads of one core, a limit on power, and the shared memory make a computation slower when
others run beside it; a time that was measured alone cannot be divided by the number of processes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from preceptor.errors import RunFailedError
from preceptor.runtime.child_process import environment_of

_SIDE = 256  # of a matrix; three of them fit the cache of a core


@contextlib.contextmanager
def core_load(processes: int, threads: int = 1) -> Iterator[None]:
    """Context with processes that multiply matrices until its end.

    Args:
        processes: Number of processes.
        threads: Number of threads of each.

    Raises:
        RunFailedError: A process has terminated at its start.
    """
    command = [sys.executable, "-m", "preceptor.runtime.core_load", str(os.getpid())]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    with contextlib.ExitStack() as stack:
        started = list[subprocess.Popen[bytes]]()
        with environment_of(**dict.fromkeys(names, str(threads))):
            for _ in range(processes):
                process = subprocess.Popen(command, stdout=subprocess.PIPE)
                stack.enter_context(process)
                stack.callback(process.kill)
                started.append(process)
        for process in started:
            assert process.stdout is not None
            if not process.stdout.readline():  # otherwise it computes from here on
                raise RunFailedError(
                    f"a process that computes beside a measurement ended with exit code "
                    f"{process.wait()}; its error is above"
                )
        yield


def _multiply(parent: int) -> None:
    """Multiply matrices until the parent has terminated."""
    import numpy as np

    left = np.ones((_SIDE, _SIDE), np.float32)
    out = np.empty_like(left)
    print("computing", flush=True)
    while os.getppid() == parent:
        np.matmul(left, left, out=out)


if __name__ == "__main__":
    _multiply(int(sys.argv[1]))
