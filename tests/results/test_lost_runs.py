"""Reports of folders whose runs were deleted or whose images have changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from preceptor.config.files import dump_config, load_config
from preceptor.report.write import write_results
from preceptor.results.domain import lost_runs
from preceptor.study.config import StudyConfig
from preceptor.study_folder import open_study, reopen
from tests.commands import Outcome, assert_refused, here
from tests.datasets import SQUARES_STUDY, squares
from tests.results.conftest import drawn_effect
from tests.studies import write_down

TABLES = ("results.csv", "runs.csv", "table.csv", "comparisons.csv", "summary.md")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data of a study and its folder; the scores are written down."""
    parent = tmp_path_factory.mktemp("lost")
    squares(parent / "data")
    file = parent / "study.yaml"
    settings = SQUARES_STUDY | {"manifest": "data/manifest.csv", "seeds": 2, "controls": []}
    training = {"input_size": 32, "epochs": 1, "batch_size": 8, "schedule": "constant"}
    file.write_text(yaml.safe_dump(settings | {"training": training}))
    folder = parent / "out"
    config = load_config(file, StudyConfig)
    study = open_study(config, folder, run=True, report_to=lambda line: None)
    (folder / "study.yaml").write_text(dump_config(config))
    write_down(study, drawn_effect)
    write_results(study, folder, {})
    return parent


@pytest.fixture
def out(written: Path, tmp_path: Path) -> Path:
    """Study folder with its tables, beside the data."""
    shutil.copytree(written, tmp_path / "copy")
    file = tmp_path / "copy" / "out" / "study.yaml"
    file.write_text(file.read_text().replace(str(written), str(tmp_path / "copy")))
    return file.parent


def tables(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in TABLES]


def report(out: Path) -> Outcome:
    return here("report", out)


def run_of(out: Path, role: str) -> str:
    """Run of a role and seed 0."""
    rows = pd.read_csv(out / "runs.csv")
    return str(rows[(rows["role"] == role) & (rows["seed"] == 0)]["run"].iloc[0])


def test_an_unchanged_study_gives_the_same_tables(out: Path) -> None:
    before = tables(out)
    assert not lost_runs(reopen(out), out)
    assert report(out).code == 0
    assert tables(out) == before


def test_a_deleted_run_is_refused_by_name(out: Path) -> None:
    before, run = tables(out), run_of(out, "baseline2")
    shutil.rmtree(out / "store" / "runs" / run)
    named = ["1 of 8 missing", f"baseline2 test_byobnet, seed 0: {run}", "remove runs.csv"]
    assert_refused(report(out), named)
    assert tables(out) == before
    (out / "runs.csv").unlink()
    assert report(out).code == 0
    assert tables(out) != before
    assert report(out).code == 0  # the tables have no lost run any more


def test_a_changed_image_is_refused(out: Path) -> None:
    before = tables(out)
    image = next((out.parent / "data" / "images").glob("train-*.png"))
    shutil.copy(image.with_name("train-1.png"), image.with_name("train-0.png"))
    assert_refused(report(out), ["2 of 8 of other data or settings", "seed 0", "remove runs.csv"])
    assert tables(out) == before
