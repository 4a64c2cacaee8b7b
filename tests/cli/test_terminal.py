"""A study as seen from its terminal, from another shell, and as a list of trainings."""

from __future__ import annotations

import os
import pty
import re
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from preceptor.cli.output import print_status, render
from preceptor.config.files import load_config
from preceptor.errors import InputError
from preceptor.execution.status import Running, Status, StudyStatus, read_status
from preceptor.study.config import StudyConfig
from preceptor.study.steps import Failure, read_planned_runs
from preceptor.study_folder import reopen
from tests import forked
from tests.datasets import squares
from tests.forked import Forked
from tests.studies import SETTINGS, run_serially


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watching")
    squares(folder / "data")
    target = folder / "study.yaml"
    target.write_text(yaml.safe_dump(SETTINGS | {"manifest": "data/manifest.csv", "controls": []}))
    return target


@pytest.fixture(scope="module")
def seen(file: Path) -> tuple[Path, list[Status]]:
    """A study that was run, and every status that another shell could have read."""
    out, found = file.parent / "study", list[Status]()

    class Watched(StudyStatus):
        def _write(self) -> None:
            super()._write()
            found.append(read_status(out)[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preceptor.driver.StudyStatus", Watched)
        run_serially(load_config(file, StudyConfig), out)
    return out, found


def test_the_status_counts_up_to_all_steps(seen: tuple[Path, list[Status]]) -> None:
    out, found = seen
    done = [status.done for status in found]
    assert done == sorted(done)
    assert done[-1] == found[-1].total
    assert all(status.pid == os.getpid() for status in found)
    assert all(len(status.running) <= 1 for status in found)
    titles = {one.title for status in found for one in status.running}
    assert "train baseline2 test_byobnet seed 0" in titles
    lines = {one.line for status in found for one in status.running if one.line}
    assert any("val AUC" in line and "images/s" in line for line in lines)
    last, held = read_status(out)
    assert last == found[-1]
    assert not last.running
    assert not held


def test_what_is_running_is_shown() -> None:
    status = Status(
        3,
        10,
        [Running("train", "train student [x] seed 0", 100.0, "epoch 1/2 val AUC 0.500")],
        {
            f"id-{number}": Failure("train", f"step {number}", "the disk is full")
            for number in range(7)
        },
        90.0,
    )
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(render(status, now=130.0))
    text = console.export_text()
    for words in (
        "3 of 10 steps",
        "about 2 min left",
        "train student [x] seed 0",
        "30 s",
        "epoch 1/2 val AUC 0.500",
        "failed: step 4: the disk is full",
        "and 2 more",
    ):
        assert words in text
    assert "step 5" not in text


def test_on_a_cluster_it_is_shown_where_a_step_is_done_and_which_one_waits() -> None:
    running = [
        Running("train", "train one", 100.0, "epoch 1/2", "node-7"),
        Running("train", "train two", 100.0),
    ]
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(render(Status(0, 2, running), now=130.0))
    one, two = console.export_text().splitlines()[-2:]
    assert one.split() == ["train", "one", "30", "s", "epoch", "1/2", "node-7"]
    assert two.split() == ["train", "two", "waits"]


@pytest.mark.parametrize(
    ("status", "held", "words"),
    [
        (Status(2, 2, updated=1.0), False, "finished"),
        (
            Status(1, 2, [Running("train", "x", 1.0)], updated=1.0),
            False,
            "not running; repeat the command",
        ),
        (Status(1, 2, host="box", pid=7, updated=1.0), True, "running on box, process 7"),
    ],
)
def test_from_another_shell(status: Status, held: bool, words: str) -> None:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    print_status(status, held, console)
    assert words in console.export_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "null",
        '{"running": 5}',
        '{"total": null}',
        '{"updated": "once"}',
        '{"running": [{"title": 1}]}',
        '{"running": [{"title": "t", "since": "then"}]}',
        "\0",
    ],
)
def test_a_status_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read; the study writes it again"):
        read_status(tmp_path)


def test_a_terminal_gets_a_live_view_and_a_pipe_plain_lines(
    file: Path, seen: tuple[Path, list[Status]], tmp_path: Path
) -> None:
    """A study of which two steps are left."""
    out = shutil.copytree(seen[0], tmp_path / "study")
    for room in ("runs", "evaluations"):
        next(iter(sorted(out.glob(f"store/{room}/*/run.json")))).unlink()
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    arguments = ["study", file, "--out", out, "--jobs", 1]
    with Forked(forked.command, arguments, stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        text = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # the other side has closed
                break
            if not part:
                break
            text += part
    os.close(parent)
    assert process.returncode == 0
    assert b"\x1b[" in text  # it is drawn over
    assert b"steps" in text
    assert b"chosen: teacher" in text
    from_here = text[text.index(b" steps") :]  # before, the images are read under a bar
    assert not re.search(rb"m\d+/\d+\x1b", from_here), "a worker draws a bar of its own"
    plain = forked.run(forked.serial_command, arguments)
    assert plain.returncode == 0
    assert "\x1b" not in plain.stdout + plain.stderr
    assert "chosen: teacher" in plain.stdout


def test_the_list_of_runs_is_that_of_the_plan(
    seen: tuple[Path, list[Status]], tmp_path: Path
) -> None:
    out, _ = seen
    assert read_planned_runs(out) == reopen(out).planned_runs()
    for content in ("[{}]", "cut sh"):
        (tmp_path / "planned_runs.json").write_text(content)
        assert read_planned_runs(tmp_path) is None
