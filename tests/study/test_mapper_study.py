"""A study with mappers: a Teacher among the candidates, its maps, its detectors, its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.errors import InputError
from preceptor.maps.store import read_store
from preceptor.models.model_folder import load_model
from preceptor.study.config import StudyConfig
from preceptor.study.plan import outline
from preceptor.study.protocol import teachers_of
from preceptor.study_folder import reopen
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import run_serially

SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "seeds": 1,
    "mapper": "start",
    "teachers": ["test_byobnet"],
    "controls": ["shuffled", "centre", "dfr"],
    "dfr_set": "val",
    "guidances": {"l2": {}, "decision": {"cam_class": "decision", "alphas": [0.5]}},
    "training": {"input_size": 32, "epochs": 1, "batch_size": 8, "lr": 0.01},
}


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
    assert names == ["test_byobnet human-guided α 0.5, CAM", "test_byobnet mapper"]
    mapper = teachers_of(plan.protocol.study)[1]
    source, steps = plan.protocol.maps_of(mapper, 0)
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
    assert "“decision” (distance l2" in html


def test_the_report_names_the_mappers(finished: Path) -> None:
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "test_byobnet mapper" in html
    assert "Mapper as a detector: annotated, human maps" in html


def test_the_report_has_a_table_of_each_kind_of_comparison(finished: Path) -> None:
    compared = pd.read_csv(finished / "comparisons.csv")
    files = {file.stem for file in (finished / "tables").glob("*.csv")}
    assert {"RQ2", "control", "detector", "ceiling", "start"} <= set(compared["question"])
    for question in compared["question"].unique():
        assert any(name.endswith(f"comparison-{question.lower()}") for name in files), question


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"positive": None}, "mapper needs two classes"),
        ({"guidances": {"wrong": {"distance": "cells"}}}, "set cam_class: decision"),
        ({"saliency": ["cells"]}, "saliency"),
    ],
)
def test_wrong_settings(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(SETTINGS | {"manifest": tmp_path / "m.csv"} | values, StudyConfig)


def test_the_outline_has_every_step_of_the_study(finished: Path) -> None:
    plan = reopen(finished).first
    first, later = outline(plan)
    outlined = {step.id for step in (*first, *later)}
    mappers = [member.run for role in ("mapper", "mapper_all") for member in plan.members_of(role)]  # type: ignore[arg-type]
    assert len(mappers) == 2
    assert set(mappers) <= outlined
