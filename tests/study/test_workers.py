"""Worker processes that are killed, at whatever moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from preceptor.study.executors import Work
from preceptor.study.executors.local import LocalExecutor
from preceptor.study.graph import Step
from preceptor.study.plan import Plan
from preceptor.study.settings import StudyConfig
from tests.datasets import squares
from tests.report.test_report import study, walk


def first_training(folder: Path) -> tuple[StudyConfig, Plan, Step]:
    config = study(squares(folder / "data"), seeds=1, controls=())
    plan = walk(config, folder / "store", compute=False)
    return config, plan, next(step for step in plan.steps.values() if step.kind == "train")


def events(executor: LocalExecutor) -> list[str]:
    found: list[str] = []
    while not found or found[-1] not in ("done", "failed"):
        found += [event.kind for event in executor.events()]
    return found


def test_one_that_is_killed_while_it_starts_is_replaced(tmp_path: Path) -> None:
    _, plan, step = first_training(tmp_path)
    executor = LocalExecutor(Work(plan.protocol.workspaces, plan.protocol.store), jobs=1)
    try:
        executor.start(step)
        (worker,) = executor._workers
        assert not worker.ready
        os.kill(worker.process.pid, signal.SIGKILL)
        found = events(executor)
    finally:
        executor.close()
    assert found[-1] == "done"
    assert (plan.protocol.folder(step) / "run.json").is_file()


def test_a_step_whose_workers_die_twice_has_failed(tmp_path: Path) -> None:
    _, plan, step = first_training(tmp_path)
    executor = LocalExecutor(Work(plan.protocol.workspaces, plan.protocol.store), jobs=1)
    told: list[str] = []
    try:
        executor.start(step)
        for _ in range(2):
            os.kill(executor._workers[0].process.pid, signal.SIGKILL)
            told += [event.text for event in executor.events()]
    finally:
        executor.close()
    assert "tried once more" in told[0]
    assert "died twice (exit code -9; it was killed, perhaps for want of memory)" in told[-1]
