"""What executors decide by: the memory of a GPU, silence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from itertools import islice
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from preceptor.errors import InputError
from preceptor.execution.local import ExecutorOptions, LocalExecutor, open_executor
from preceptor.execution.perform import WorkerContext
from preceptor.execution.process import start_worker
from preceptor.study.steps import JoinMaps, Step
from preceptor.study.workspaces import Workspaces
from preceptor.utils.process import hung
from tests.commands import HANGS
from tests.forked import own_process

GIB = 2**30


# GPUs.


def test_a_worker_sees_one_gpu(tmp_path: Path) -> None:
    """GPUs that need not exist: what a process sees of them is said by its environment."""
    for gpu in ("0", "MIG-1"):
        (process, pipe), seen = start_worker(threads=1, gpu=gpu), b""
        while not seen:  # a process that begins has none yet
            assert process.is_alive()
            seen = Path(f"/proc/{process.pid}/environ").read_bytes()
        process.kill()
        process.join()
        pipe.close()
        assert f"CUDA_VISIBLE_DEVICES={gpu}".encode() in seen.split(b"\0")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_worker_is_no_fork_where_the_temporary_folder_is_too_long_for_a_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"/{'x' * 90}")
    process, pipe = start_worker(threads=1)
    assert isinstance(process, SpawnProcess)
    process.kill()
    process.join()
    pipe.close()


@own_process
def test_steps_share_the_gpus_by_their_number(tmp_path: Path) -> None:
    context = WorkerContext(Workspaces({}, {}), tmp_path)
    executor = LocalExecutor(context, gpus=["0", "1"], jobs=8, runs_per_gpu=2)
    try:
        assert executor.free == 4
        for name in ("a", "b", "c"):
            executor.start(Step(name, JoinMaps(()), name))  # a step without a run fails at once
        assert executor.free == 1
        while not any(event.ends for event in islice(executor.events(), 1)):
            pass
        assert executor.free == 2
    finally:
        executor.close()


# Engines.


@pytest.mark.parametrize(
    ("engine", "address", "words"),
    [("slurm", None, "use local or ray"), ("local", "auto", "needs --engine ray")],
)
def test_an_engine_that_cannot_be_is_refused(engine: str, address: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ExecutorOptions(engine, address=address).checked(1, print)  # type: ignore[arg-type]


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    context = WorkerContext(Workspaces({}, {}), tmp_path)
    with socket.socket() as nobody:  # bound, so that no other program listens there
        nobody.bind(("127.0.0.1", 0))
        there = f"127.0.0.1:{nobody.getsockname()[1]}"
        for address in (there, f"ray://{there}"):
            with pytest.raises(InputError, match=f"--address {address}: no Ray cluster there"):
                open_executor(context, ExecutorOptions("ray", address=address))
    with pytest.raises(InputError, match=r"--address host:port: .*; write HOST:PORT or auto"):
        open_executor(context, ExecutorOptions("ray", address="host:port"))


# Silence.


def in_process(body: str, log: Path, patience: float) -> subprocess.CompletedProcess[str]:
    """Watch some lines in a process of their own."""
    script = f"""
        import ctypes, threading
        from pathlib import Path
        from math import inf
        from preceptor.utils.process import beat, watched
        with watched(Path({str(log)!r}), {patience}):
            {body}
        print("ended")
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )


def silent_after_a_beat(body: str, log: Path) -> subprocess.CompletedProcess[str]:
    """The end of some lines that are silent after their first beat."""
    patience = 1.0
    while True:
        done = in_process(f"beat(); {body}", log, patience)
        assert done.returncode == 1
        if hung(log) or patience > HANGS:
            return done
        patience *= 2


FOREVER = "threading.Event().wait()"


def test_who_is_silent_is_ended_and_leaves_its_stacks(tmp_path: Path) -> None:
    log = tmp_path / "failed" / "x.log"
    done = silent_after_a_beat(FOREVER, log)
    assert "ended" not in done.stdout
    assert hung(log)
    assert "line 7 in <module>" in log.read_text()


def test_a_call_that_holds_the_interpreter_lock_is_ended_as_well(tmp_path: Path) -> None:
    silent_after_a_beat("ctypes.PyDLL(None).pause()", tmp_path / "x.log")
    assert hung(tmp_path / "x.log")
