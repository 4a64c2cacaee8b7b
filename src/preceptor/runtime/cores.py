"""Number of available CPU cores, and of concurrent jobs."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path

from preceptor.errors import InputError

RUN_THREADS = 1
"""CPU threads of a run, where nothing else is set. Runs of a study do not wait for each other and
the threads of a run do, so that many runs finish first if each has one thread: n threads make a run
less than n times as fast (`preceptor doctor` measures how much)."""


def core_count(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of cores by the process's affinity and its container's quota, at least one.

    Args:
        quota: File of the control group: microseconds of CPU time per period (or max), and the
            period.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, IndexError):
        most, period = quota.read_text(encoding="ascii").split()[:2]
        if most != "max":
            cores = min(cores, math.ceil(int(most) / int(period)))
    return max(1, cores)


def job_count(threads: int) -> int:
    """Number of concurrent jobs that the cores allow, at least one.

    Args:
        threads: CPU threads of each job.
    """
    return max(1, core_count() // threads)


def checked_jobs(jobs: int | None, threads: int, tell: Callable[[str], None]) -> int | None:
    """Number of jobs, limited so that jobs × threads does not exceed the cores.

    Raises:
        InputError: `jobs` is below 1.
    """
    most = job_count(threads)
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: must be 1 or more")
    if jobs is not None and jobs > most:
        tell(f"{jobs} jobs of {threads} threads exceed the {core_count()} cores; using {most} jobs")
    return None if jobs is None else min(jobs, most)
