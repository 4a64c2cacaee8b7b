"""Worker processes that are killed, at whatever moment."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
from multiprocessing import forkserver
from pathlib import Path

from preceptor.execution.local import LocalExecutor
from preceptor.execution.perform import Event, WorkerContext
from tests.commands import HANGS
from tests.forked import Forked, forking, own_process, script
from tests.hangs import blocked_training, until_it_hangs


def events(executor: LocalExecutor) -> list[str]:
    found: list[str] = []
    while not found or found[-1] not in ("done", "failed"):
        found += [event.kind for event in executor.events()]
    return found


def worker(executor: LocalExecutor) -> int:
    """The process of an executor's one worker."""
    (one,) = executor._workers
    assert one.process.pid is not None
    return one.process.pid


@own_process
def test_one_that_is_killed_while_it_starts_is_replaced(tmp_path: Path) -> None:
    """And the log of an earlier failure goes when the step is done."""
    with blocked_training(tmp_path) as (plan, step):  # it does not end before it is killed
        log = tmp_path / "store" / "failed" / f"{step.id}.log"
        log.parent.mkdir()
        log.write_text("it diverged")
        work = WorkerContext(plan.protocol.workspaces, plan.protocol.store)
        executor = LocalExecutor(work, jobs=1)
        executor.start(step)
        os.kill(worker(executor), signal.SIGKILL)
    try:
        found = events(executor)
        assert worker(executor) in [one.pid for one in multiprocessing.active_children()]
    finally:
        executor.close()
    assert not multiprocessing.active_children()
    assert found[-1] == "done"
    assert (plan.protocol.folder(step) / "run.json").is_file()
    assert not log.exists()


@own_process
def test_a_fork_server_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with blocked_training(tmp_path) as (plan, step):
        work = WorkerContext(plan.protocol.workspaces, plan.protocol.store)
        executor = LocalExecutor(work, jobs=1)
        executor.start(step)
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
        os.kill(worker(executor), signal.SIGKILL)
    try:
        assert events(executor)[-1] == "done"
    finally:
        executor.close()


def forking_script() -> None:
    with forking():
        script()


PARENT = """
from multiprocessing import forkserver
from preceptor.execution.process import start_worker
if __name__ == "__main__":
    workers = [start_worker(threads=1) for _ in range(2)]
    server = forkserver._forkserver._forkserver_pid
    print(server, *(process.pid for process, _ in workers), flush=True)
    input()
"""


def test_no_worker_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Forked(forking_script, [tmp_path / "parent.py"], **pipes) as parent:
        assert parent.stdout is not None
        handles = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(handles) == 3
        parent.kill()
        for handle in handles:
            watched = select.poll()
            watched.register(handle, select.POLLIN)
            assert watched.poll(1000 * HANGS)
            os.close(handle)


@own_process
def test_a_step_whose_workers_die_twice_has_failed(tmp_path: Path) -> None:
    """Whether or not a worker was ready when it was killed: the step never ends by itself."""
    told: list[Event] = []
    with blocked_training(tmp_path) as (plan, step):
        executor = LocalExecutor(
            WorkerContext(plan.protocol.workspaces, plan.protocol.store), jobs=1
        )
        try:
            executor.start(step)
            os.kill(worker(executor), signal.SIGKILL)
            while not told:
                told += executor.events()
            os.kill(worker(executor), signal.SIGKILL)
            while not told[-1].ends:
                told += executor.events()
        finally:
            executor.close()
    assert "tried once more" in told[0].text
    assert told[-1].kind == "failed"
    died = "died twice (exit code -9; it was killed, perhaps because memory ran out)"
    assert died in told[-1].text


@own_process
def test_a_step_that_hangs_is_ended_told_and_not_tried_again(tmp_path: Path) -> None:
    with blocked_training(tmp_path) as (plan, step):

        def attempt(patience: float) -> list[Event]:
            work = WorkerContext(
                plan.protocol.workspaces, plan.protocol.store, hang_timeout=patience
            )
            executor = LocalExecutor(work, jobs=1)
            told: list[Event] = []
            try:
                executor.start(step)
                while not told or not told[-1].ends:
                    told += executor.events()
                assert len([one for one in told if one.ends]) == 1
                assert executor.free == 1, "the worker was replaced"
            finally:
                executor.close()
            return told

        told = until_it_hangs(attempt, tmp_path / "store" / "failed" / f"{step.id}.log")
    assert told[-1].kind == "failed"
    assert told[-1].text.startswith("hung: silent for ")
    assert not any("tried once more" in one.text for one in told)
