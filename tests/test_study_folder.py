"""What a study folder holds while a study is run again, and who may run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from preceptor.config.files import dump_config
from preceptor.errors import InputError
from preceptor.execution.scheduler import Graph
from preceptor.execution.status import read_status
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import read_planned_runs
from preceptor.study_folder import other_study_note, read_study, write_progress
from preceptor.utils.leases import DEAD_AFTER, Holder, lease
from tests.commands import APART, HANGS
from tests.datasets import squares
from tests.studies import run_serially, study, walk, write_down


def test_a_start_that_is_stopped_at_once_keeps_what_an_earlier_one_knew(tmp_path: Path) -> None:
    config = study(squares(tmp_path / "data", size=(8, 8)), seeds=2, alphas=(0.5, 0.1))
    plan = StudyPlan.of(walk(config, tmp_path / "store", compute=False))
    write_down(plan, lambda arm, seed: 3 - abs(arm.alpha - 0.1))
    write_progress(plan, tmp_path, complete=True)
    runs, choices = read_planned_runs(tmp_path), (tmp_path / "selection.json").read_text()
    assert runs

    again = read_study(config, tmp_path)
    graph = Graph(again.start())
    write_progress(again, tmp_path)
    assert read_planned_runs(tmp_path) == runs
    assert (tmp_path / "selection.json").read_text() == choices
    assert graph.has_ready

    more = read_study(config.model_copy(update={"seeds": 3}), tmp_path)
    more.start()
    write_progress(more, tmp_path)
    assert {one.seed for one in read_planned_runs(tmp_path) or ()} == {0, 1, 2}
    write_progress(more, tmp_path, complete=True)  # choices that the study does not make are gone
    assert json.loads((tmp_path / "selection.json").read_text()) == {}


def test_the_folder_of_a_study_of_other_data_is_told_of(tmp_path: Path) -> None:
    config = study(tmp_path / "a.csv")
    assert other_study_note(config, tmp_path) == ""
    (tmp_path / "study.yaml").write_text(dump_config(config))
    assert other_study_note(config.model_copy(update={"seeds": 9}), tmp_path) == ""
    note = other_study_note(study(tmp_path / "b.csv"), tmp_path)
    assert note.startswith(f"note: {tmp_path} has a study of {tmp_path / 'a.csv'}, whose ")


def test_files_that_no_study_has_written_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InputError, match=r"it has best, report\.html, which a study would replace"):
        run_serially(study(tmp_path / "none.csv"), tmp_path)
    with (
        lease(tmp_path / "study"),
        pytest.raises(InputError, match=r"process \d+ on .* is starting"),
    ):
        read_status(tmp_path)
    with pytest.raises(InputError, match="no study has been started here"):
        read_status(tmp_path)


def test_an_interrupt_while_workers_import_is_told_in_one_line(tmp_path: Path) -> None:
    config = study(squares(tmp_path / "data", size=(8, 8)))
    (file := tmp_path / "study.yaml").write_text(dump_config(config))
    command = [*APART, "study", str(file), "--out", str(tmp_path / "out"), "--jobs", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # A terminal interrupts all processes of a session.
    started = subprocess.Popen(command, start_new_session=True, **pipes)
    assert started.stdout is not None
    assert started.stdout.readline().startswith("reading ")
    os.killpg(started.pid, signal.SIGINT)
    out, _ = started.communicate(timeout=HANGS)
    assert started.returncode == 130
    assert [line.split(";")[0] for line in out.splitlines()] == ["interrupted"]


def test_a_study_that_was_killed_on_another_machine_goes_on(tmp_path: Path) -> None:
    """Such as a container, of which the system ended all processes."""
    killed = Holder("token", "another machine", "far", 1, 7)
    file = tmp_path / ".study.lease"
    file.write_text(json.dumps(asdict(killed)))
    silent = time.time() - DEAD_AFTER + 1
    os.utime(file, (silent, silent))
    lines: list[str] = []
    with pytest.raises(InputError, match=r"none\.csv"):  # the study itself is started
        run_serially(study(tmp_path / "none.csv"), tmp_path, lines.append)
    assert lines[0].startswith(
        f"{tmp_path}: process 1 on far runs this study, unless it was killed"
    )
