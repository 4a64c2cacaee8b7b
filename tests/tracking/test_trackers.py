"""What may be asked for, and that nothing that goes wrong in a tracker reaches the study."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from preceptor.errors import InputError
from preceptor.tracking.trackers import Tracker, Trackers, check_trackers, open_trackers
from tests import forked
from tests.tracking.conftest import Followed


def test_what_cannot_be_followed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(["tensorboard", "mlflow"], "sqlite:///some.db")
    with pytest.raises(InputError, match=r"wandb.*use tensorboard or mlflow"):
        check_trackers(["wandb"])
    with pytest.raises(InputError, match="add --track mlflow"):
        check_trackers(["tensorboard"], "http://127.0.0.1:5000")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"MLflow is not installed; pip install '\.\[track"):
        check_trackers(["mlflow"])


def test_a_password_in_an_error_is_not_told() -> None:
    lines: list[str] = []

    def fail() -> Tracker:
        raise OSError("https://me:secret@host/api is down")

    Trackers(lines.append).add("mlflow", fail)
    assert lines == ["MLflow is not followed any more, the study goes on: https://host/api is down"]


def test_nothing_is_imported_unless_asked_for(tmp_path: Path) -> None:
    """A forked process has imported what a study imports, and nothing of the tests."""
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, preceptor.tracking.trackers\n"
        "print({'mlflow', 'tensorboard'} & set(sys.modules))\n"
    )
    assert forked.run(forked.script, [script]).stdout == "set()\n"


def test_none(followed: Followed) -> None:
    lines: list[str] = []
    trackers = open_trackers([], followed.plan, followed.out, None, lines.append)
    assert not trackers
    trackers.begun(followed.trainings[0])
    trackers.study({}, followed.report)
    trackers.close()
    assert not lines


def test_a_server_that_does_not_answer_is_told_of_once(followed: Followed) -> None:
    lines: list[str] = []
    names = ["mlflow", "tensorboard"]
    uri = "http://127.0.0.1:9"
    trackers = open_trackers(names, followed.plan, followed.out, uri, lines.append)
    step = followed.trainings[0]
    followed.train(step)
    trackers.begun(step)
    trackers.finished(step)
    trackers.study({}, followed.report)
    trackers.close()
    (told,) = (line for line in lines if "MLflow" in line)
    assert "not followed any more, the study goes on" in told
    assert (followed.out / "tensorboard" / "study").is_dir()


def test_a_disk_that_goes_away_is_told_of_once(followed: Followed) -> None:
    lines: list[str] = []
    trackers = open_trackers(["tensorboard"], followed.plan, followed.out, None, lines.append)
    root: Path = followed.out / "tensorboard"
    shutil.rmtree(root)
    root.write_text("not a folder")
    for step in followed.trainings:
        trackers.begun(step)
        trackers.epoch(step)
        trackers.failed(step, "no reason")
    trackers.close()
    assert len(lines) == 2
    assert lines[1].startswith("TensorBoard is not followed any more, the study goes on: ")
