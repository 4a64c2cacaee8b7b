"""Launcher of the processes of one run on this node; if one fails, all are stopped.

The processes may also be started by a launcher such as torchrun or srun; then each command is one
process, see `member.py`. The launcher here imports no torch, which would take seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.errors import InputError, PreceptorError, RunFailedError
from preceptor.runtime.child_process import call_in_child, environment_of

GRACE = 10.0
"""Seconds in which the process that failed is looked for, once another has lost it."""
AGAIN = "the same command goes on from the last epoch"
LOST, RELAYED = 70, 71
"""Exit codes of a process that ended because of another one: it was lost, or reported an error."""
SERVE = ("preceptor.training.member", "serve")
"""Module and function that a process of the run executes."""
# Beginnings of variables that torchrun, Slurm, LSF and the implementations of MPI set.
_LAUNCHERS = (
    "LOCAL_RANK",
    "TORCHELASTIC_",
    "SLURM_",
    "LSB_",
    "JSM_",
    "OMPI_",
    "PMI_",
    "PMIX_",
    "MPI_",
    "MV2_",
)


def may_be_member() -> bool:
    """Whether another launcher may have started this process; `member.is_member` decides."""
    return any(name.startswith(_LAUNCHERS) for name in os.environ)


def launch(config: RunConfig, store: str) -> None:
    """Train one run on several devices.

    Args:
        config: Run config with devices × nodes > 1.
        store: Folder of run folders, accessible from all nodes.

    Raises:
        PreceptorError: A process failed or died; the message has the reason if known.
    """
    settings = config.training
    if settings.nodes > 1:
        _check_nodes(settings)
    node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")))
    first = node * settings.devices
    variables = {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(_free_port()),
        "NODE_RANK": str(node),
        "WORLD_SIZE": str(settings.processes),
        "OMP_NUM_THREADS": str(settings.threads),
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
    }
    members: list[_Member] = []
    try:
        for local in range(settings.devices):
            with environment_of(**variables, LOCAL_RANK=str(local)):
                members.append(_start(config, store, first + local))
        _attend(members)
        _judge(members, settings.processes)
    finally:
        for member in members:
            member.process.kill()
        for member in members:
            member.process.join()
            member.pipe.close()


@dataclass
class _Member:
    """Process of the run; `told` is the reported error."""

    rank: int
    process: BaseProcess
    pipe: Connection
    told: PreceptorError | None = None
    ended: bool = False

    @property
    def failed(self) -> bool:
        """Whether the process failed by itself."""
        return self.ended and self.process.exitcode not in (0, LOST, RELAYED)


def _check_nodes(settings: Training) -> None:
    missing = [
        name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ
    ]
    if missing:
        raise InputError(
            f"training.nodes is {settings.nodes}, and {', '.join(missing)} not set: start the "
            "command on each node with MASTER_ADDR and MASTER_PORT of the first, and NODE_RANK "
            "from 0; or start it by torchrun or srun"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(config: RunConfig, store: str, rank: int) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=call_in_child, args=(*SERVE, theirs, config, store), daemon=True
    )
    process.start()
    theirs.close()
    return _Member(rank, process, ours)


def _attend(members: list[_Member]) -> None:
    """Wait until all processes have ended, or one has failed and the reason is known."""
    until: float | None = None
    while open_ := {member.pipe: member for member in members if not member.ended}:
        left = None if until is None else max(until - time.monotonic(), 0)
        ready = wait(list(open_), left)
        if not ready:
            return
        for pipe in ready:
            member = open_[pipe]  # type: ignore[index]
            try:
                member.told = member.pipe.recv()
            except (EOFError, OSError):
                member.process.join()
                member.ended = True
        if any(member.told is not None or member.failed for member in members):
            return
        if until is None and any(member.ended and member.process.exitcode for member in members):
            until = time.monotonic() + GRACE


def _judge(members: list[_Member], world: int) -> None:
    """Raise the error of the processes, if any."""
    for member in members:
        if member.told is not None:
            raise member.told
    for member in members:
        if member.failed:
            code = member.process.exitcode or 0
            how = f"failed with exit code {code}"
            if code < 0:
                memory = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
                how = f"was killed by signal {-code}{memory}"
            raise RunFailedError(f"process {member.rank + 1} of {world} {how}; {AGAIN}")
    if any(member.process.exitcode != 0 for member in members):
        raise RunFailedError(f"the processes of other nodes are gone; {AGAIN}")
