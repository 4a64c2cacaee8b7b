"""A study without clean labels: swapped validation images select, and repair has its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.config.run import MapSource
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.metrics.split_names import SWAPPED
from preceptor.models.build import load_model
from preceptor.study.config import StudyConfig
from preceptor.study_folder import reopen
from preceptor.training.prepare import run_id_of
from preceptor.training.validation import selects_by_swaps
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import run_serially
from tests.training.small_runs import small

SPLITS = {"train": 32, "val": 24, "test": 12, "test-unseen": 12}
SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "seeds": [1],
    "teacher_alphas": [],
    "mapper": True,
    "ceiling": False,
    "controls": ["dfr", "repair", "repair_shuffled"],
    "training": {"input_size": 32, "epochs": 30, "batch_size": 8, "lr": 0.05},
}
ROWS = ["repair", "repair_shuffled", "student_repair"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marks")
    manifest = squares(folder / "data", splits=SPLITS)
    result = run_serially(
        parse_config(SETTINGS | {"manifest": manifest}, StudyConfig), folder / "study"
    )
    assert not result.failed
    assert result.missing == 0
    return folder / "study"


def test_swapped_images_are_a_validation_set(finished: Path) -> None:
    plan = reopen(finished).first
    assert selects_by_swaps(plan.protocol.workspace)
    for member in plan.members:
        scores = pd.read_parquet(plan.protocol.run_folder(member.run) / "scores.parquet")
        own = scores[scores["split"] == SWAPPED]
        pairs = own.groupby(["label", "source"]).size()
        assert len(own) >= 300
        assert pairs.nunique() == 1, "each class has each class of the outside equally often"
    chosen = json.loads((finished / "selection.json").read_text())
    assert {row["worst_set"] for row in chosen["student:test_byobnet"]["table"]} <= {"val", SWAPPED}
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "without clean labels for the selection, by swapped images" in html


def test_repair_is_a_row_with_its_twin_and_a_student(finished: Path) -> None:
    table = pd.read_csv(finished / "table.csv")
    primary = table[(table["set"] == "test-unseen") & table["source"].isna()].set_index("key")
    assert primary.loc[ROWS, "mean"].notna().all()
    assert "dfr" not in primary.index
    plan = reopen(finished).first
    heads = {}
    for role in ("baseline2", *ROWS, "student"):
        (member,) = plan.members_of(role)
        model = load_model(plan.protocol.run_folder(member.run) / "model")
        state = {name: values.numpy() for name, values in model.state_dict().items()}
        heads[role] = state
    for role, base in zip(ROWS, ("baseline2", "baseline2", "student"), strict=True):
        changed = [
            name
            for name, values in heads[role].items()
            if not np.array_equal(values, heads[base][name])
        ]
        assert changed
        assert all("head" in name for name in changed), "only the last layer is trained again"
    weights = [heads[role]["backbone.head.fc.weight"] for role in ROWS[:2]]
    assert not np.allclose(*weights), "the shuffled maps repair otherwise"


def less(manifest: Path, marked: int) -> Workspace:
    """The manifest with fewer validation images that were examined."""
    table = pd.read_csv(manifest)
    others = table[table["split"] == "val"].index[marked:]
    table.loc[others, ["saliency", "annotated"]] = [None, 0]
    file = manifest.with_name("less.csv")
    table.to_csv(file, index=False)
    return Workspace(Manifest.read(file, verify=False), manifest.parent / "cache")


def test_without_enough_marks_or_with_clean_labels_nothing_is_swapped(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    assert selects_by_swaps(less(manifest, 20))
    assert not selects_by_swaps(less(manifest, 19))
    table = pd.read_csv(manifest)
    clean = table[table["split"] == "test"].assign(split="val-clean")
    file = manifest.with_name("clean.csv")
    pd.concat([table[table["split"] != "test"], clean]).to_csv(file, index=False)
    assert not selects_by_swaps(Workspace(Manifest.read(file, verify=False), tmp_path / "cache"))


def test_ids_say_that_swapped_images_select_and_which_maps_repair(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    workspace = Workspace.open(manifest, tmp_path / "cache")
    source = MapSource(kind="store", path=tmp_path, identity="a")
    runs = [
        small(manifest, alpha=1.0),
        small(manifest, alpha=1.0, swaps=source),
        small(manifest, alpha=1.0, swaps=source.model_copy(update={"identity": "b"})),
        small(manifest, alpha=1.0, swaps=source.model_copy(update={"shuffle_seed": 1})),
    ]
    ids = [run_id_of(workspace, one) for one in runs]
    assert len(set(ids)) == len(ids)
    workspace.kept[SWAPPED] = False
    assert run_id_of(workspace, runs[0]) != ids[0]
