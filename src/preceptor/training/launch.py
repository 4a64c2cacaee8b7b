"""Launcher of the processes of one run on this node; if one fails, all are stopped.

The processes may also be started by a launcher such as torchrun or srun; then each command is one
process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.errors import InputError, PreceptorError, RunFailedError
from preceptor.runtime.child_process import belong_to_parent, environment_of
from preceptor.runtime.progress import silence
from preceptor.training.distributed import RelayedError, join, lost, make_fabric
from preceptor.training.run import train

GRACE = 10.0
"""Seconds in which the process that failed is looked for, once another has lost it."""
AGAIN = "the same command goes on from the last epoch"
# Exit codes of a process that ended because of another one: it was lost, or reported an error.
_LOST, _RELAYED = 70, 71


def launch(config: RunConfig, store: str) -> None:
    """Train one run on several devices.

    Args:
        config: Run config with devices × nodes > 1.
        store: Folder of run folders, accessible from all nodes.

    Raises:
        PreceptorError: A process failed or died; the message has the reason if known.
    """
    settings = config.training
    strategy = make_fabric(settings).strategy
    assert isinstance(strategy, DDPStrategy)
    environment = strategy.cluster_environment
    assert environment is not None
    if environment.creates_processes_externally:
        code = _take_part(config, store, _say)
        if code == _LOST:
            raise RunFailedError(f"the other processes of this run are gone; {AGAIN}")
        if code:
            sys.exit(1 if code == _RELAYED else code)
        return
    if settings.nodes > 1 and isinstance(environment, LightningEnvironment):
        _check_nodes(settings)
    first = environment.node_rank() * settings.devices
    variables = {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
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
        return self.ended and self.process.exitcode not in (0, _LOST, _RELAYED)


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


def _start(config: RunConfig, store: str, rank: int) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, config, store), daemon=True)
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


def _serve(pipe: Connection, config: RunConfig, store: str) -> None:
    """Target of a process, which terminates with the command."""
    belong_to_parent()
    try:
        code = _take_part(config, store, pipe.send)
    except BaseException:  # an unexpected error: full traceback
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without waiting for network threads whose peers are gone


def _take_part(config: RunConfig, store: str, say: Callable[[PreceptorError], None]) -> int:
    """Train as one of the processes; returns the exit code."""
    try:
        fabric, ranks = join(config.training)
        if not ranks.leads:
            silence()
        tell = _tell if ranks.leads else None
        result = train(config, store, ranks=ranks, fabric=fabric, tell=tell)
        if ranks.leads:
            _tell(f"run {result.folder}")
    except RelayedError:
        return _RELAYED
    except PreceptorError as error:
        say(error)
        return error.exit_code
    except RuntimeError as error:
        if not lost(error):
            raise
        return _LOST
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _say(error: PreceptorError) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
