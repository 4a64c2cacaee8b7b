"""Choice of an executor: worker processes of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal, get_args

from preceptor.errors import InputError
from preceptor.execution.events import HANG_TIMEOUT, Executor, WorkerContext
from preceptor.execution.local import LocalExecutor
from preceptor.execution.process import Starter
from preceptor.utils.process import checked_jobs

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class ExecutorOptions:
    """How steps are executed.

    Args:
        engine: local (worker processes of this machine) or ray (Ray cluster).
        jobs: Maximum number of concurrent steps; None = as many as the cores, GPUs or cluster
            allow.
        runs_per_gpu: Number of steps per GPU; None = from the measured peak memory of trainings.
        address: Address of the Ray cluster, or auto; None = RAY_ADDRESS, or a local Ray instance.
        hang_timeout: Minutes without progress after which a step is killed and marked failed.
    """

    engine: Engine = "local"
    jobs: int | None = None
    runs_per_gpu: int | None = None
    address: str | None = None
    hang_timeout: float = HANG_TIMEOUT

    def checked(self, threads: int, tell: Callable[[str], None]) -> ExecutorOptions:
        """Options that can be used, with at most as many jobs as the cores allow.

        Args:
            threads: CPU threads of a step.
            tell: Function that receives a message if there are fewer jobs than asked for.

        Raises:
            InputError: The engine is unknown or not installed, or `local` has an address.
        """
        check_engine(self.engine, self.address)
        if self.engine != "local":
            return self
        return replace(self, jobs=checked_jobs(self.jobs, threads, tell))


def check_engine(engine: str, address: str | None) -> None:
    """Check that an engine can be used.

    Raises:
        InputError: The engine is unknown or not installed, or `local` has an address.
    """
    if engine not in get_args(Engine):
        raise InputError(f"--engine {engine}: use {' or '.join(get_args(Engine))}")
    if engine == "ray" and find_spec("ray") is None:
        raise InputError(
            "--engine ray: Ray is not installed; pip install '.[ray]' in the source folder"
        )
    if engine != "ray" and address is not None:
        raise InputError(f"--address {address}: needs --engine ray; add it, or remove --address")


def open_executor(
    context: WorkerContext, options: ExecutorOptions, *, early: Starter | None = None
) -> Executor:
    """Create the executor of a study.

    Args:
        context: Data and settings of the study.
        options: Engine and its limits.
        early: Starter of workers that was made in advance, for `local`.

    Raises:
        InputError: Ray is not installed, there is no cluster, or the cluster lacks resources that a
            step needs.
    """
    jobs, runs_per_gpu = options.jobs, options.runs_per_gpu
    if options.engine == "ray":
        from preceptor.execution.ray import RayExecutor

        return RayExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, address=options.address)

    return LocalExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, early=early)
