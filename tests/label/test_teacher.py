"""The Teacher learns squares from few marks, beside the server; its proposals are kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.config.files import dump_config
from preceptor.config.training import Training
from preceptor.errors import InputError
from preceptor.label import teacher as teacher_module
from preceptor.label.db import connect, read_settings
from preceptor.label.marks import Patch
from preceptor.label.queue import Proposal, add_teacher, proposal_for, write_proposals
from preceptor.label.sources import root_of
from preceptor.label.teacher import (
    AutoTeacher,
    LabelTeacher,
    MarkedImage,
    TeacherConfig,
    answered_images,
    overlap,
    propose,
    propose_with,
    teach,
)
from tests import forked
from tests.commands import HANGS
from tests.datasets import squares
from tests.label.serving import command, running
from tests.model_folders import model_folder

CONFIG = TeacherConfig(
    backbone="test_byobnet",
    weights="none",
    backbone_args={"output_stride": 8},
    training=Training(
        length="steps",
        steps=60,
        epochs=1,
        batch_size=8,
        optimizer="adamw",
        lr=1e-2,
        input_size=64,
        schedule="one_cycle",
    ),
)
"""Settings of a Teacher that learns the marks of `squares` in seconds."""


def marked(folder: Path, splits: dict[str, int]) -> list[MarkedImage]:
    """Images of `squares` with their maps as marks."""
    table = pd.read_csv(squares(folder, splits=splits, size=(96, 64)), keep_default_na=False)
    images = []
    for row in table.itertuples():
        mask = np.zeros((64, 96), bool)
        if row.saliency:
            mask = np.asarray(Image.open(folder / str(row.saliency)).convert("L")) > 127
        mark = Patch(0, 0, mask)
        images.append(MarkedImage(folder / str(row.path), mark, (96, 64), str(row.split)))
    return images


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelTeacher, list[MarkedImage]]:
    folder = tmp_path_factory.mktemp("teacher")
    images = marked(folder / "data", {"train": 40, "test": 20})
    known = [one for one in images if one.split == "train"]
    return teach(known, folder / "work", CONFIG), [one for one in images if one.split == "test"]


def test_proposals_overlap_with_marks(
    taught: tuple[LabelTeacher, list[MarkedImage]], tmp_path: Path
) -> None:
    teacher, unseen = taught
    assert teacher.images == 32  # every fifth image is held out
    proposed = list(propose(teacher, [one.path for one in unseen], tmp_path))
    assert all(mask.shape == (64, 96) for mask, _ in proposed)
    pairs = list(zip(unseen, proposed, strict=True))
    overlaps = [overlap(one.mask, mask) for one, (mask, _) in pairs if one.is_marked]
    assert np.mean(overlaps) > 0.4
    assert teacher.agreement is not None
    assert abs(teacher.agreement - np.mean(overlaps)) < 0.3
    positive, negative = (
        np.mean([score for one, (_, score) in pairs if one.is_marked is has])
        for has in (True, False)
    )
    assert positive > negative + 0.2


def test_validation_images_are_not_taught(tmp_path: Path) -> None:
    images = marked(tmp_path / "data", {"train": 8, "val": 6})
    config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"steps": 1})})
    assert teach(images, tmp_path / "work", config).images == 8
    table = pd.read_csv(tmp_path / "work" / "manifest.csv", keep_default_na=False)
    assert table["split"].value_counts().to_dict() == {"train": 8, "val": 6}
    few = [one for one in images[:4] if not one.is_marked]
    few += [one for one in images[:4] if one.is_marked][:1]
    with pytest.raises(InputError, match="2 with nothing to mark; there are 1 and 2; mark more"):
        teach(few, tmp_path / "w", CONFIG)


def test_a_pixel_is_taught_that_half_of_the_people_marked(manifest: Path) -> None:
    """As rectangles: the masks of all images at full size would be larger than the memory."""
    masks = np.zeros((3, 30, 40), bool)
    masks[0, 2:6, 3:9] = masks[1, 4:8, 5:12] = masks[2, 0:5, 3:5] = True
    with running(manifest, overlap=3, overlap_share=1.0) as server:
        for mask, name in zip(masks, ("ann", "bo", "cy"), strict=True):
            person = server.client(name)
            assert person.stroke(1, mask).status == 200
            assert person.answer(1).status == 200
        (image,) = answered_images(server.labeling.database.reading, manifest.parent)
    assert (image.mask == (2 * masks.sum(0) >= 3)).all()
    assert image.mark.bits.size == 8 * 9


@pytest.fixture
def marks(marked_database: Path, tmp_path: Path) -> Path:
    """Database with 24 answers of 40 images, which it names relative to its folder."""
    folder = marked_database.parents[1]
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    return copy / marked_database.relative_to(folder)


@pytest.fixture
def _forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has imported torch, which is no subject of these tests."""
    started = SimpleNamespace(get_context=lambda _: forked.Spawning)
    monkeypatch.setattr(teacher_module, "multiprocessing", started)


def wait_until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + HANGS
    while not is_so() and time.monotonic() < end:
        time.sleep(0.2)


@pytest.mark.usefixtures("_forked_children")
def test_a_teacher_is_trained_and_given_ones_propose_too(marks: Path, tmp_path: Path) -> None:
    config = tmp_path / "teacher.yaml"
    config.write_text(dump_config(CONFIG), encoding="utf-8")
    with closing(connect(marks, readonly=True)) as reading:

        def proposals(teacher: int) -> int:
            counted = "SELECT count(*) FROM proposals WHERE teacher = ?"
            return int(reading.execute(counted, (teacher,)).fetchone()[0])

        auto = AutoTeacher(marks, tmp_path / "teachers", config, every=24)
        auto.start()
        wait_until(lambda: proposals(1))
        auto.close()
        assert 0 < proposals(1) <= 40 - 24
        (folder,) = reading.execute("SELECT folder FROM teachers").fetchone()
        # The model of a folder, with a threshold from the marks.
        teacher = propose_with(marks, tmp_path / "cache", Path(folder), "cells")
        assert teacher.agreement is not None
        assert teacher.agreement > 0.4
        assert 0 < proposals(2) <= 40 - 24
    with pytest.raises(InputError, match="model"):
        propose_with(marks, tmp_path / "cache", tmp_path, "cells")


@pytest.mark.usefixtures("_forked_children")
def test_too_few_marks_are_told_and_the_thread_goes_on(
    marks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(connect(marks)) as connection:
        connection.execute("UPDATE answers SET state = 'cannot_judge' WHERE state = 'marked'")
    told: list[str] = []
    auto = AutoTeacher(marks, tmp_path / "teachers", None, every=1, tell=told.append)
    auto.start()
    wait_until(lambda: told)
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
        (root / rows[0]["path"]).write_bytes(b"no image")
        whole = (root / rows[3]["path"]).read_bytes()
        (root / rows[3]["path"]).write_bytes(whole[:-40])  # the head is sound
        propose_with(marks, tmp_path / "cache", model, "cells")
        noted = connection.execute("SELECT id, problem FROM images WHERE problem IS NOT NULL")
        problems = dict(noted.fetchall())
        assert problems.keys() == {rows[0]["id"], rows[3]["id"]}
        assert "not an image in a known format" in problems[rows[0]["id"]]
        proposed = {row[0] for row in connection.execute("SELECT image FROM proposals")}
        assert proposed == {row["id"] for row in rows} - problems.keys()


BOX = (0, 0, 2, 1, bytes([0, 2]))


def test_which_images_have_a_proposal(manifest: Path, database: Path) -> None:
    """By the split, and by the overlap of the Teacher with people's marks."""
    after: tuple[tuple[str, set[str]], ...] = (
        ("", {"train"}),
        ("--proposals-on-evaluation", {"train", "val"}),
        ("", {"train", "val"}),  # what is not given does not change
        ("--no-proposals-on-evaluation", {"train"}),
    )
    for start, (option, expected) in enumerate(after):
        options = ["--least-overlap", "0.6"] if start == 0 else []
        with command(manifest, "--proposals", "first", *options, *filter(None, [option])):
            pass
        with closing(connect(database)) as connection:
            splits = dict(connection.execute("SELECT id, split FROM images").fetchall())
            if start == 0:
                rows = [Proposal(image, *BOX) for image in splits]
                write_proposals(connection, add_teacher(connection, "teacher", 2), rows)
            settings = read_settings(connection)
            assert settings.least_overlap == 0.6
            proposed = {image for image in splits if proposal_for(connection, image, 1, settings)}
        assert {splits[image] for image in proposed} == expected, option
    image = min(proposed)
    with closing(connect(database)) as connection:
        connection.execute("DELETE FROM proposals")

        def shown(least: float = 0.6) -> int | None:
            proposal = proposal_for(connection, image, 1, replace(settings, least_overlap=least))
            return None if proposal is None else int(proposal["teacher"])

        def teacher(agreement: float | None, box: tuple[int, int, int, int, bytes] = BOX) -> int:
            number = add_teacher(connection, "teacher", 2, agreement)
            write_proposals(connection, number, [Proposal(image, *box)])
            return number

        weak = teacher(0.59)
        assert (shown(), shown(0.5), shown(0.0)) == (None, weak, weak)
        good = teacher(0.6)
        weaker = teacher(0.3)
        assert (shown(), shown(0.0)) == (good, weaker)  # the newest that overlaps enough
        unknown = teacher(None)
        assert shown() == unknown
        teacher(0.9, (0, 0, 0, 0, b""))  # it has found nothing
        assert shown() is None
