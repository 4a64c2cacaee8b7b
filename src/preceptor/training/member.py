"""One of the processes of a run on several devices."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.errors import PreceptorError, RunFailedError
from preceptor.runtime.freed_memory import keep_freed_memory
from preceptor.runtime.progress import silence
from preceptor.training.distributed import RelayedError, join, lost, make_fabric
from preceptor.training.fabric import DDPStrategy
from preceptor.training.launch import AGAIN, LOST, RELAYED
from preceptor.training.run import train


def is_member(settings: Training) -> bool:
    """Whether a launcher such as torchrun or srun started this process as one of a run."""
    strategy = make_fabric(settings).strategy
    assert isinstance(strategy, DDPStrategy)
    environment = strategy.cluster_environment
    assert environment is not None
    return environment.creates_processes_externally


def take_part(config: RunConfig, store: str) -> None:
    """Train a run as one of the processes that another launcher has started.

    Raises:
        RunFailedError: The other processes of the run are gone.
    """
    code = _take_part(config, store, _say)
    if code == LOST:
        raise RunFailedError(f"the other processes of this run are gone; {AGAIN}")
    if code:
        sys.exit(1 if code == RELAYED else code)


def serve(pipe: Connection, config: RunConfig, store: str) -> None:
    """Train a run as one of the processes that `launch` has started, and exit.

    Args:
        pipe: Pipe that receives the error of the run, if this process has one to report.
        config: Config of the run.
        store: Folder of run folders.
    """
    keep_freed_memory()
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
        return RELAYED
    except PreceptorError as error:
        say(error)
        return error.exit_code
    except RuntimeError as error:
        if not lost(error):
            raise
        return LOST
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _say(error: PreceptorError) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
