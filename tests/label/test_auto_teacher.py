"""A Teacher is trained beside the page when there are enough answers; its proposals are stored."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from preceptor.config.files import dump_config
from preceptor.errors import InputError
from preceptor.label import teacher as auto_teacher
from preceptor.label.db import Connection, connect
from preceptor.label.queue import newest_teacher
from preceptor.label.sources import root_of
from preceptor.label.teach import propose_with
from preceptor.label.teacher import AutoTeacher, answers_before_newest, count_answers
from tests import forked
from tests.datasets import squares
from tests.label.filled import mark_known
from tests.label.teachers import CONFIG
from tests.model_folders import model_folder

HANGS = 600.0


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marked")
    manifest = squares(folder / "data", splits={"train": 40, "val": 4}, size=(96, 64))
    return mark_known(manifest, 24)


@pytest.fixture
def marks(marked: Path, tmp_path: Path) -> Path:
    """Database with 24 answers of 40 images, which it names relative to its folder."""
    copy = Path(shutil.copytree(marked.parents[1], tmp_path / "copy"))
    return copy / marked.relative_to(marked.parents[1])


@pytest.fixture(autouse=True)
def _forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has imported torch, which is no subject of these tests."""
    monkeypatch.setattr(
        auto_teacher, "multiprocessing", SimpleNamespace(get_context=lambda _: forked.Spawning)
    )


def test_a_teacher_is_trained_and_given_ones_propose_too(marks: Path, tmp_path: Path) -> None:
    config = tmp_path / "teacher.yaml"
    config.write_text(dump_config(CONFIG), encoding="utf-8")
    with closing(connect(marks, readonly=True)) as reading:
        auto = AutoTeacher(marks, tmp_path / "teachers", config, every=24)
        auto.start()
        end = time.monotonic() + HANGS
        while newest_teacher(reading) is None and time.monotonic() < end:
            time.sleep(0.2)
        open_images = 40 - 24
        while _proposals(reading, 1) == 0 and time.monotonic() < end:
            time.sleep(0.2)
        auto.close()
        assert 0 < _proposals(reading, 1) <= open_images
        assert answers_before_newest(reading) == count_answers(reading) == 24
        (folder,) = reading.execute("SELECT folder FROM teachers").fetchone()
        # The model of a folder, with a threshold from the marks.
        teacher = propose_with(marks, tmp_path / "cache", Path(folder), "cells")
        assert teacher.agreement is not None
        assert teacher.agreement > 0.4
        assert 0 < _proposals(reading, 2) <= open_images


def test_too_few_marks_are_told_and_the_thread_goes_on(
    marks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(connect(marks)) as connection:
        connection.execute("UPDATE answers SET state = 'cannot_judge' WHERE state = 'marked'")
    told: list[str] = []
    auto = AutoTeacher(marks, tmp_path / "teachers", None, every=1, tell=told.append)
    auto.start()
    end = time.monotonic() + HANGS
    while not told and time.monotonic() < end:
        time.sleep(0.2)
    auto.close()
    assert told == ["no new Teacher (exit code 1); see above"]
    assert "a Teacher needs 2 training images with marks" in capfd.readouterr().out


def test_damaged_images_do_not_stop_the_proposals(marks: Path, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "test_byobnet", 1)
    with closing(connect(marks)) as connection:
        root = root_of(connection, marks)
        rows = connection.execute(
            "SELECT id, path FROM images WHERE id NOT IN (SELECT image FROM answers) "
            "AND split = 'train' ORDER BY position"
        ).fetchall()
        damaged = {rows[0]["id"], rows[3]["id"]}
        (root / rows[0]["path"]).write_bytes(b"no image")
        whole = (root / rows[3]["path"]).read_bytes()
        (root / rows[3]["path"]).write_bytes(whole[:-40])  # the head is sound
        propose_with(marks, tmp_path / "cache", model, "cells")
        noted = connection.execute("SELECT id, problem FROM images WHERE problem IS NOT NULL")
        problems = dict(noted.fetchall())
        assert problems.keys() == damaged
        assert problems[rows[0]["id"]] == (
            "not an image in a known format, or its header is damaged"
        )
        proposed = {row[0] for row in connection.execute("SELECT image FROM proposals")}
        assert proposed == {row["id"] for row in rows} - damaged


def test_a_folder_without_a_model_is_refused(marks: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model"):
        propose_with(marks, tmp_path / "cache", tmp_path, "cells")


def _proposals(connection: Connection, teacher: int) -> int:
    found = connection.execute(
        "SELECT count(*) FROM proposals WHERE teacher = ?", (teacher,)
    ).fetchone()[0]
    return int(found)
