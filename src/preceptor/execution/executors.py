"""Choice of an executor: worker processes of this machine, or a Ray cluster."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

from preceptor.errors import InputError
from preceptor.execution.events import Executor, WorkerContext
from preceptor.execution.local import LocalExecutor
from preceptor.execution.process import Starter

Engine = Literal["local", "ray"]


def check_engine(engine: str, address: str | None) -> None:
    """Check that an engine can be used.

    Raises:
        InputError: The engine is unknown or not installed, or `local` has an address.
    """
    if engine not in get_args(Engine):
        raise InputError(f"--engine {engine}: use {' or '.join(get_args(Engine))}")
    if engine == "ray" and find_spec("ray") is None:
        raise InputError("--engine ray: Ray is not installed; pip install 'preceptor[ray]'")
    if engine != "ray" and address is not None:
        raise InputError(f"--address {address}: needs --engine ray; add it, or remove --address")


def open_executor(
    context: WorkerContext,
    *,
    engine: Engine = "local",
    jobs: int | None = None,
    runs_per_gpu: int | None = None,
    address: str | None = None,
    early: Starter | None = None,
) -> Executor:
    """Create the executor of a study.

    Args:
        context: Data and settings of the study.
        engine: local or ray.
        jobs: Maximum number of concurrent steps; None = as many as the cores or GPUs allow.
        runs_per_gpu: Number of steps per GPU; None = from the measured peak memory of trainings.
        address: Address of the Ray cluster, or auto; None = RAY_ADDRESS, or a local Ray instance.
        early: Starter of workers that was made in advance, for `local`.

    Raises:
        InputError: Ray is not installed, there is no cluster, or the cluster lacks resources that a
            step needs.
    """
    if engine == "ray":
        from preceptor.execution.ray import RayExecutor

        return RayExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, address=address)

    return LocalExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, early=early)
