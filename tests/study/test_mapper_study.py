"""Studies with mappers, with RISE, and with weights that change: what is trained and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.maps.store import MapStore, read_store
from preceptor.models.build import load_model, save_model
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.protocol import teachers_of
from preceptor.study.steps import Evaluate, MakeMaps
from preceptor.study_folder import reopen
from preceptor.utils.results import finish, read_record
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import run_serially, study

MASKS, SEED = 160, 1
SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "seeds": [SEED],
    "mapper": "start",
    "data_driven": True,
    "teacher_alphas": [0.5],
    "saliency": ["cam", "rise"],
    "rise_masks": MASKS,
    "teachers": ["test_byobnet"],
    "controls": ["shuffled", "centre", "dfr"],
    "dfr_set": "val",
    "training": {"input_size": 32, "epochs": 1, "batch_size": 8, "lr": 0.01},
}
HUMAN, DATA = "test_byobnet human-guided α 0.5", "test_byobnet data-driven"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mapper")
    study = parse_config(SETTINGS | {"manifest": squares(folder / "data")}, StudyConfig)
    result = run_serially(study, folder / "study")
    assert not result.failed
    assert result.missing == 0
    return folder / "study"


def test_a_mapper_is_a_candidate_and_its_maps_are_probabilities(finished: Path) -> None:
    plan = reopen(finished).first
    names = [str(teacher) for teacher in teachers_of(plan.protocol.study)]
    shown = [f"{whose}, {how}" for whose in (HUMAN, DATA) for how in ("CAM", "RISE")]
    assert names == [*shown, "test_byobnet mapper"]
    mapper = teachers_of(plan.protocol.study)[-1]
    source, steps = plan.protocol.maps_of(mapper, SEED)
    assert source.marks
    store = read_store(plan.protocol.maps_folder(steps[-1].id))
    assert store.info.method == "cells"
    assert 0 < store.maps.min() < store.maps.max() < 1
    assert len(store.paths) == 24
    model = load_model(plan.protocol.run_folder(steps[0].id) / "model")
    assert (model.spec.head, model.spec.pool.kind) == ("sigmoid", "top")


def test_detectors_are_rows_of_the_table(finished: Path) -> None:
    table = pd.read_csv(finished / "table.csv")
    primary = table[(table["set"] == "test-unseen") & table["source"].isna()]
    keys = list(primary["key"])
    assert keys[-3:] == ["mapper", "mapper_all", "ceiling"]
    assert primary.set_index("key").loc["mapper", "title"].startswith("Mapper as a detector")
    assert primary["mean"].notna().all()
    compared = pd.read_csv(finished / "comparisons.csv")
    assert set(compared.loc[compared["question"] == "detector", "key_b"]) == {
        "mapper",
        "mapper_all",
    }


def test_rows_of_the_last_layer_and_of_the_mappers_weights(finished: Path) -> None:
    table = pd.read_csv(finished / "table.csv")
    primary = table[(table["set"] == "test-unseen") & table["source"].isna()].set_index("key")
    assert primary.loc["dfr", "title"] == "Control: Baseline 2, last layer trained again on val"
    rows = ["baseline1_started", "baseline2_started", "student_started"]
    assert primary.loc[rows, "mean"].notna().all()
    compared = pd.read_csv(finished / "comparisons.csv")
    assert list(compared.loc[compared["question"] == "start", "key_b"]) == rows[:2]
    plan = reopen(finished).first
    for member in plan.members:
        if member.arm.start:
            config = plan.steps[member.run].config
            assert config is not None
            assert Path(config.weights).is_file()
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "Student from the mapper" in html


def stores(out: Path) -> dict[str, MapStore]:
    return {str(folder): read_store(folder) for folder in sorted(out.glob("store/maps/[!.]*"))}


def test_every_teacher_marks_in_both_ways(finished: Path) -> None:
    found = [one for one in stores(finished).values() if one.info.method != "cells"]
    methods = sorted((store.info.method, store.info.teacher) for store in found)
    teachers = {teacher for _, teacher in methods}
    assert len(teachers) == 2  # human-guided and data-driven
    assert methods == sorted((method, one) for method in ("cam", "rise") for one in teachers)
    for store in found:
        assert store.maps.shape == (24, 4, 4)
        if store.info.method == "cam":
            assert store.error is None
            continue
        assert store.error is not None
        assert store.info.settings["max_masks"] == MASKS
        assert store.info.settings["tolerance"] == 0.3125  # 50 ÷ 160
        assert 24 * MASKS >= int(store.info.settings["masks"]) > 0


def test_students_learn_from_the_maps_that_settled(finished: Path) -> None:
    plan = reopen(finished).first
    protocol = plan.protocol
    unsettled = 0
    for teacher in teachers_of(protocol.study)[:-1]:
        *_, marking, student = protocol.student(teacher, "test_byobnet", Setting(0.5), SEED)
        store = read_store(protocol.maps_folder(marking.id))
        record = read_record(protocol.run_folder(student.id))
        assert record["guided_images"] == store.settled.sum()
        unsettled += int((~store.settled).sum())
    assert unsettled > 0  # so that it was about something


def test_rise_is_compared_with_cam(finished: Path) -> None:
    compared = pd.read_csv(finished / "comparisons.csv")
    lines = compared[compared["question"] == "saliency"]
    assert set(zip(lines["a"], lines["b"], strict=True)) == {
        (f"Students of {whose}, RISE", f"Students of {whose}, CAM") for whose in (HUMAN, DATA)
    }
    questions = compared[compared["question"] == "RQ1"]
    assert set(zip(questions["a"], questions["b"], strict=True)) == {
        (f"Students of {HUMAN}, {how}", f"Students of {DATA}, {how}") for how in ("CAM", "RISE")
    }
    results = pd.read_csv(finished / "results.csv")
    here = results[(results["set"] == "test-unseen") & results["source"].isna()]
    here = here[here["role"] == "student"].set_index("teacher")["auc"]
    for line in lines.itertuples():
        whose = str(line.a).removeprefix("Students of ").removesuffix(", RISE")
        expected = here[f"{whose}, RISE"] - here[f"{whose}, CAM"]
        assert line.mean == pytest.approx(expected, abs=1e-5)
        assert np.isnan(line.p_holm)


def test_maps_and_scores_follow_the_weights(tmp_path: Path) -> None:
    config = study(squares(tmp_path / "data"), seeds=1, controls=(), ceiling=False)
    out = tmp_path / "out"
    run_serially(config, out)
    steps = reopen(out).first.steps.values()
    (made,) = (one for one in steps if isinstance(one.work, MakeMaps))
    assert isinstance(made.work, MakeMaps)
    teacher, before = out / "store" / "runs" / made.work.run, read_store(made.folder(out / "store"))

    model = load_model(teacher / "model")  # what a training on another device leaves
    for weights in model.backbone.parameters():
        weights.data.mul_(-1.0)
    save_model(model, teacher / "model")
    record = read_record(teacher)
    finish(teacher, {key: value for key, value in record.items() if key != "files"})

    lines: list[str] = []
    result = run_serially(config, out, lines.append)
    tested = [one for one in steps if isinstance(one.work, Evaluate) and teacher.name in one.needs]
    assert result.computed == 1 + len(tested)
    assert sum("made with other weights" in line for line in lines) == result.computed
    assert (read_store(made.folder(out / "store")).maps != before.maps).any()
    assert run_serially(config, out).computed == 0
