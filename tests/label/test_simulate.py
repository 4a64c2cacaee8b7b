"""Simulated marking through the real server, with a real Teacher."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preceptor.config.yaml_file import dump_config
from preceptor.errors import InputError, RunFailedError
from preceptor.label.annotator_config import AnnotatorConfig, Error
from preceptor.label.database import connect
from preceptor.label.simulate import Simulation, simulate, summary
from tests import forked
from tests.commands import assert_refused, flags, here, in_fork
from tests.datasets import squares
from tests.forked import Forked
from tests.label.teachers import CONFIG
from tests.small_files import files_up_to

ROUGH = AnnotatorConfig(error=Error(shift=0.05, scale=0.05))
PLAIN = Simulation(images=32, people=("ada", "bo"), annotator=ROUGH)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    return squares(folder / "data", splits={"train": 60, "val": 4}, size=(96, 64))


def test_proposals_save_time_at_equal_quality(manifest: Path, tmp_path: Path) -> None:
    plain = simulate(manifest, tmp_path / "plain", PLAIN)
    (tmp_path / "deeper").mkdir()
    helped = simulate(
        manifest,
        tmp_path / "deeper" / "helped",  # the place of a simulation changes nothing
        replace(
            PLAIN,
            proposals="first",
            least_overlap=0,
            teacher=CONFIG.model_copy(update={"every": 20}),
        ),
    )
    # The same images in the same order; before the first Teacher the same work to the second.
    assert plain["image"].tolist() == helped["image"].tolist()
    pd.testing.assert_frame_equal(plain[:20], helped[:20])
    assert set(helped["person"]) == {"ada", "bo"}
    assert (helped["teacher_images"][20:] > 0).all()
    assert helped["proposed"][20:].any()  # about half of the 12 images are marked ones
    assert "proposals, overlap" in summary(helped)
    # What is in the database is what was counted.
    connection = connect(tmp_path / "deeper" / "helped" / "marks.sqlite", readonly=True)
    seconds = connection.execute("SELECT sum(seconds) FROM answers").fetchone()[0]
    assert seconds == pytest.approx(helped["seconds"].sum())
    adopted = connection.execute(
        "SELECT count(*) FROM strokes WHERE proposal IS NOT NULL"
    ).fetchone()[0]
    assert adopted == helped["adopted"].sum()
    connection.close()
    # A folder that is moved with its images stays whole: no name is absolute.
    named = pd.read_csv(tmp_path / "deeper" / "helped" / "images.csv")["path"]
    assert not any(Path(one).is_absolute() for one in named)
    assert np.nanmin(helped["overlap"]) > 0.5


TABLES = {
    "strokes": "image, person, number, tool, class, erase, x, y, w, h, runs, undone, proposal",
    "answers": "image, person, state, label, certainty, seconds, proposal, proposals_mode",
    "proposals": "id, image, teacher, x, y, w, h, runs, score",
    "teachers": "id, images, agreement",
    "events": "image, person, kind, detail",
    "images": "id, path, position, priority, places",
}


def marks_of(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """The tables of a simulation, without times and random names."""
    with closing(connect(folder / "marks.sqlite", readonly=True)) as connection:
        return {
            table: sorted(
                map(tuple, connection.execute(f"SELECT {columns} FROM {table}")), key=repr
            )
            for table, columns in TABLES.items()
        }


def interrupt(arguments: Sequence[object], reached: Callable[[], bool], sent: int) -> None:
    """Start a simulation, and send it a signal at a point that it reaches."""
    quiet = subprocess.DEVNULL
    with Forked(forked.command, arguments, stdout=quiet, stderr=quiet) as process:
        while process.poll() is None and not reached():
            time.sleep(0.01)
        process.send_signal(sent)


def test_a_simulation_that_is_interrupted_is_resumed(manifest: Path, tmp_path: Path) -> None:
    """It has the marks, proposals and rows of one that was not: everything but times."""
    fast = CONFIG.training.model_copy(update={"steps": 6})
    teacher = CONFIG.model_copy(update={"every": 20, "training": fast})
    (tmp_path / "teacher.yaml").write_text(dump_config(teacher))

    def command(folder: Path) -> list[object]:
        given = flags(images=39, people="ada,bo", order="gain", proposals="first")
        given += ["--config", tmp_path / "teacher.yaml", "--to", folder]
        return ["label", "simulate", manifest, *given]

    folder = tmp_path / "interrupted"
    log = folder / "simulation.jsonl"

    def lines() -> int:
        return log.read_text().count("\n") if log.exists() else 0

    interrupt(command(folder), lambda: lines() > 2, signal.SIGKILL)
    interrupt(command(folder), (folder / "before-teacher.sqlite").exists, signal.SIGINT)
    interrupt(command(folder), lambda: lines() > 22, signal.SIGKILL)
    if not (folder / "simulation.csv").exists():  # it may have ended before the signal came
        found = in_fork(*command(folder))
        assert found.code == 0, found
        assert re.search(r"interrupted: resumed after \d+ answers", found.out)
    assert in_fork(*command(tmp_path / "whole")).code == 0
    for one in (folder, tmp_path / "whole"):
        assert {entry.name for entry in one.iterdir()} == {
            ".marks.sqlite.lock",
            "images.csv",
            "marks.sqlite",
            "simulation.csv",
            "teachers",
        }
    rows = [(one / "simulation.csv").read_bytes() for one in (folder, tmp_path / "whole")]
    assert rows[0] == rows[1]
    assert marks_of(folder) == marks_of(tmp_path / "whole")


def test_another_simulation_in_the_folder_of_an_interrupted_one_begins_anew(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 4, "val": 2})
    folder = tmp_path / "new"

    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # where no image is left
        simulate(manifest, folder, Simulation(images=5), tell=interrupted)
    told: list[str] = []
    assert len(simulate(manifest, folder, Simulation(images=4), tell=told.append)) == 4
    assert not told
    assert {one.name for one in folder.iterdir()} == {
        ".marks.sqlite.lock",
        "images.csv",
        "marks.sqlite",
        "simulation.csv",
    }


def test_a_full_disk_names_the_folder_and_leaves_nothing(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with files_up_to(300), pytest.raises(OSError, match="File too large") as caught:
        simulate(manifest, folder, PLAIN)
    assert caught.value.filename == str(folder)
    assert not folder.exists()
    with files_up_to(300_000), pytest.raises(RunFailedError) as refused:
        simulate(manifest, folder, PLAIN)
    assert str(refused.value).startswith(f"{folder}: the simulation has stopped: ")
    assert "the disk is full" in str(refused.value)
    assert not folder.exists()


def test_costs_and_errors_are_those_of_the_file(manifest: Path, tmp_path: Path) -> None:
    """Without time for strokes, only looking and keys remain; without errors, the exact marks."""
    file = tmp_path / "annotator.yaml"
    file.write_text(
        "costs: {open: 3, answer: 1, stroke: 0, steer: 0}\nerror: {shift: 0, scale: 0}\n"
    )
    arguments = flags(images=6, to=tmp_path / "new", annotator=file)
    found = here("label", "simulate", manifest, *arguments, "--no-teacher")
    assert found.code == 0, found
    rows = pd.read_csv(tmp_path / "new" / "simulation.csv")
    assert (rows["seconds"] == 4).all()
    assert (rows["overlap"] == 1).all()


def test_costs_that_are_no_costs_are_refused(manifest: Path, tmp_path: Path) -> None:
    file = tmp_path / "annotator.yaml"
    file.write_text("costs: {open: -1, strike: 2}\nerror: {tolerance: 0}\n")
    arguments = flags(to=tmp_path / "new", annotator=file)
    named = ["annotator.yaml", "costs.open", "costs.strike", "error.tolerance"]
    assert_refused(here("label", "simulate", manifest, *arguments), named, problems=3)
    assert not (tmp_path / "new").exists()


def test_settings_of_teachers_without_teachers_are_refused(manifest: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    arguments = ("--to", new, "--no-teacher", "--config", tmp_path / "teacher.yaml")
    assert_refused(here("label", "simulate", manifest, *arguments), ["--no-teacher"])
    assert not new.exists()


def test_a_folder_that_is_not_empty_and_a_manifest_without_maps(
    manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "a.txt").touch()
    with pytest.raises(InputError, match="not empty"):
        simulate(manifest, tmp_path / "used", PLAIN)
    table = pd.read_csv(manifest).assign(saliency="", annotated=0)
    table["path"] = [str(manifest.parent / one) for one in table["path"]]
    table.to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(InputError, match="no training image was examined"):
        simulate(tmp_path / "bare.csv", tmp_path / "new", PLAIN)
