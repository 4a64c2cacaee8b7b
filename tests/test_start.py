"""The start of a study: what it reads and builds the first time, and when it is started again."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from preceptor.config.files import load_config
from preceptor.data.notes import EXAMINED
from preceptor.errors import RunFailedError
from preceptor.models import build
from preceptor.study import selection
from preceptor.study.config import StudyConfig
from preceptor.study.steps import read_planned_runs
from preceptor.study_folder import reopen
from tests import forked
from tests.datasets import SHORT, SQUARES_STUDY, squares
from tests.opened import OpenedFiles
from tests.studies import run_serially, same_tables

SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "manifest": "data/manifest.csv",
    "primary": "test",
    "annotated": None,
    "seeds": 1,
    "alphas": [0.1, 0.5],
    "controls": [],
    "ceiling": False,
    "training": SHORT | {"augmentation": {"crop_area": 0.5}},
}
SPLITS = {"train": 16, "val": 8, "test": 8}
NOTE = "note: 1 image of val is byte for byte in train too"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    manifest = squares(folder / "data", splits=SPLITS)
    # An image of training is one of validation too, which a start tells.
    train, val = (manifest.parent / f"images/{name}-2.png" for name in ("train", "val"))
    val.write_bytes(train.read_bytes())
    (folder / "study.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder / "study.yaml"


@dataclass
class Watched:
    """The study in processes of its own, which opens files that are counted."""

    file: Path
    out: Path
    opened: OpenedFiles
    environment: dict[str, str]

    def start(self) -> Counter[str]:
        """Start the study, and return how often each file of the data was opened."""
        arguments = [self.opened.hook, "study", self.file, "--out", self.out, "--jobs", 1]
        done = forked.run(forked.watched_command, arguments, env=self.environment)
        assert done.returncode == 0, done.stderr
        assert NOTE in done.stdout
        return self.opened.take()


@pytest.fixture(scope="module")
def begun(file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watched, Counter[str]]:
    """A study that was started once, and which files that opened."""
    folder = tmp_path_factory.mktemp("hook")
    environment = os.environ | {"PRECEPTOR_CACHE": str(folder / "cache")}
    opened = OpenedFiles(file.parent / "data", folder)
    study = Watched(file, file.parent / "out", opened, environment)
    return study, study.start()


@pytest.fixture
def finished(begun: tuple[Watched, Counter[str]]) -> Path:
    return begun[0].out


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often networks are built and selections bootstrap, both as they are."""
    found: Counter[str] = Counter()
    for module, name in ((build, "create_network"), (selection, "bootstrap_difference")):
        function = getattr(module, name)

        def counted(*arguments: Any, _of: Any = function, _as: str = name, **words: Any) -> Any:
            found[_as] += 1
            return _of(*arguments, **words)

        monkeypatch.setattr(module, name, counted)
    return found


def test_a_study_reads_each_image_for_its_cache_and_never_again(
    begun: tuple[Watched, Counter[str]],
) -> None:
    """Its worker processes and its report included."""
    study, counts = begun[0], begun[1].copy()
    assert counts.pop("manifest.csv")
    table = pd.read_csv(study.file.parent / "data" / "manifest.csv", keep_default_na=False)
    assert set(counts) == {*table["path"], *table["saliency"]} - {""}
    # Once for the cache, once as one of the 64 files whose values are examined. The report shows
    # some test images as they are.
    assert len(table) <= EXAMINED
    assert {count for name, count in counts.items() if "/test" not in name} == {2}

    page = (study.out / "report.html").stat().st_mtime_ns
    assert set(study.start()) == {"manifest.csv"}
    assert (study.out / "report.html").stat().st_mtime_ns == page


def test_a_finished_study_is_opened_without_networks_and_without_bootstraps(
    file: Path, finished: Path, calls: Counter[str]
) -> None:
    assert len(read_planned_runs(finished) or ()) == 5
    choices = reopen(finished).first.choices
    assert {choice.name for choice in choices} >= {"teacher", "student:test_byobnet"}
    assert run_serially(load_config(file, StudyConfig), finished).computed == 0
    assert not calls


@pytest.mark.parametrize("change", ["missing", "damaged", "other scores", "earlier version"])
def test_a_choice_that_is_not_of_these_scores_is_made_again(
    finished: Path, calls: Counter[str], tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("study.yaml", "selection.json"):
        shutil.copy(finished / name, folder / name)
    study = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(study | {"store": str(finished / "store")}))
    file = folder / "selection.json"
    choices = json.loads(file.read_text())
    if change == "missing":
        file.unlink()
    elif change == "damaged":
        file.write_text(file.read_text()[:-20])
    else:
        for choice in choices.values():
            choice["winner"] = "somebody"
            choice["evidence"] = "0" * 20
            if change == "earlier version":
                del choice["evidence"]
        file.write_text(json.dumps(choices))
    found = reopen(folder).first.choices
    expected = reopen(finished).first.choices
    assert calls["bootstrap_difference"] == 2  # Baseline 1 and the Students, of two α each
    assert not calls["create_network"]
    assert [choice.reason for choice in found.values()] == [
        choice.reason for choice in expected.values()
    ]
    pd.testing.assert_frame_equal(
        pd.concat(pd.DataFrame(one.table) for one in found.values()),
        pd.concat(pd.DataFrame(one.table) for one in expected.values()),
    )


def test_finished_trainings_are_scored_while_maps_before_them_fail(
    file: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps that were removed cannot be made again; the Students that they guided are there."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "store" / "maps")
    shutil.rmtree(out / "store" / "evaluations")
    config = load_config(file, StudyConfig)

    def full(*_: Any, **__: Any) -> None:
        raise RunFailedError("the disk is full")

    with monkeypatch.context() as failing:
        failing.setattr("preceptor.execution.perform.compute_maps", full)
        result = run_serially(config, out)
    assert {one.kind for one in result.failed.values()} == {"maps"}
    assert result.computed == len(list((out / "store" / "evaluations").iterdir())) > 0
    assert len(reopen(out).first.members) == len(reopen(finished).first.members)
    same_tables(out, finished)
    again = run_serially(config, out)
    assert not again.failed
    assert again.computed > 0
    assert not run_serially(config, out).computed
