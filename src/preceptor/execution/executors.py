"""Choice of an executor: worker processes of this machine, or a Ray cluster."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

from preceptor.errors import InputError
from preceptor.execution.events import Executor, WorkerContext
from preceptor.execution.local import LocalExecutor
from preceptor.execution.process import Process

Engine = Literal["local", "ray"]


def check_engine(engine: str, address: str | None) -> None:
    """Refuse an engine that cannot be used, before anything is done.

    Raises:
        InputError: It is not known or not installed, or an address is given to `local`.
    """
    if engine not in get_args(Engine):
        raise InputError(f"--engine {engine}: use {' or '.join(get_args(Engine))}")
    if engine == "ray" and find_spec("ray") is None:
        raise InputError("--engine ray: Ray is not installed; pip install 'preceptor[ray]'")
    if engine != "ray" and address is not None:
        raise InputError(f"--address {address}: it is for --engine ray alone")


def open_executor(
    context: WorkerContext,
    *,
    engine: Engine = "local",
    jobs: int | None = None,
    runs_per_gpu: int | None = None,
    address: str | None = None,
    early: Process | None = None,
) -> Executor:
    """The executor of a study.

    Args:
        context: Data and settings of the study.
        engine: local or ray.
        jobs: Most steps at once; None = what the cores or GPUs allow.
        runs_per_gpu: Steps that share a GPU; None = from the measured peak memory of trainings.
        address: Of the Ray cluster, or auto; None = RAY_ADDRESS, or a Ray on this machine.
        early: A worker process that was started before, for `local`.

    Raises:
        InputError: Ray is not installed or not found, or the cluster lacks what a step needs.
    """
    if engine == "ray":
        from preceptor.execution.ray import RayExecutor

        return RayExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, address=address)

    return LocalExecutor(context, jobs=jobs, runs_per_gpu=runs_per_gpu, early=early)
