"""Test scores and maps are those of the weights that a run has now."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from preceptor.maps.store import read_store
from preceptor.models.model_folder import load_model, save_model
from preceptor.report.write import write_results
from preceptor.results import read
from preceptor.study.steps import Evaluate, MakeMaps, Step
from preceptor.study_folder import reopen
from preceptor.utils.results import finish, read_record, read_scores
from tests.datasets import squares
from tests.studies import run_serially, study


def steps_of(out: Path, kind: type) -> list[Step]:
    return [one for one in reopen(out).first.steps.values() if isinstance(one.work, kind)]


def train_again(run: Path) -> None:
    """What a training on another device leaves: other weights, with their checksums."""
    model = load_model(run / "model")
    for weights in model.backbone.parameters():
        weights.data.mul_(-1.0)
    save_model(model, run / "model")
    record = read_record(run)
    finish(run, {key: value for key, value in record.items() if key != "files"})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("finished")
    config = study(squares(folder / "data"), seeds=1, controls=(), ceiling=False)
    run_serially(config, folder / "out")
    return config, folder / "out"


def test_test_scores_and_maps_follow_the_weights(
    finished: tuple[Any, Path], tmp_path: Path
) -> None:
    config, before = finished
    out = tmp_path / "out"
    shutil.copytree(before, out)
    store = out / "store"
    (made,) = steps_of(out, MakeMaps)
    assert isinstance(made.work, MakeMaps)
    teacher = store / "runs" / made.work.run
    scored = next(
        one
        for one in steps_of(out, Evaluate)
        if isinstance(one.work, Evaluate) and one.work.run != made.work.run
    )
    assert isinstance(scored.work, Evaluate)
    old_maps = read_store(made.folder(store)).maps
    old_scores = read_scores(scored.folder(store))

    lines: list[str] = []
    assert run_serially(config, out, lines.append).computed == 0
    shutil.rmtree(teacher)  # trained again here, with the same weights
    assert run_serially(config, out, lines.append).computed == 1
    assert not [line for line in lines if "made with other weights" in line]

    train_again(teacher)
    train_again(store / "runs" / scored.work.run)
    rows = len(read(out).results)
    write_results(reopen(out), out)  # after the training, before the scoring
    assert len(read(out).results) < rows
    result = run_serially(config, out, lines.append)
    others = [line for line in lines if "made with other weights" in line]
    both = {teacher.name, scored.work.run}
    tested = [one for one in steps_of(out, Evaluate) if both & set(one.needs)]
    assert result.computed == len(others) == len(tested) + 1
    assert not result.failed
    assert (read_store(made.folder(store)).maps != old_maps).any()
    assert not read_scores(scored.folder(store)).equals(old_scores)
    assert len(read(out).results) == rows
    assert run_serially(config, out).computed == 0
