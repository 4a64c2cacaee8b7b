"""An archive has scores, choices and tables, and the tables are made from it without the images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from preceptor.config.files import dump_config, load_config, parse_config
from preceptor.errors import InputError
from preceptor.report.write import write_results
from preceptor.results.domain import archive_study, csv_files, gather_study, study_results
from preceptor.results.record import read_archive, write_archive
from preceptor.study.config import StudyConfig
from preceptor.study_folder import open_study, reopen
from tests.commands import here
from tests.datasets import SQUARES_STUDY, squares
from tests.results.conftest import drawn_effect
from tests.studies import write_down


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study of two seeds, whose scores are written down."""
    folder = tmp_path_factory.mktemp("archive")
    squares(folder / "data")
    values = SQUARES_STUDY | {
        "manifest": str(folder / "data" / "manifest.csv"),
        "seeds": [0, 1],
        "budget": [4],
        "ceiling": False,
        "controls": ["shuffled"],
        "training": {"input_size": 32, "epochs": 1, "batch_size": 8},
    }
    config, out = parse_config(values, StudyConfig), folder / "study"
    plans = open_study(config, out, run=True, report_to=lambda line: None)
    (out / "study.yaml").write_text(dump_config(plans.config))
    write_down(plans, drawn_effect)
    write_results(plans, out, {})
    return out


@pytest.fixture(scope="module")
def archive(study: Path) -> Path:
    """Archive of the study."""
    folder = study.parent / "archive"
    assert archive_study(reopen(study), study, folder) > 8
    return folder


def test_an_archive_is_small_and_names_no_image_folder(study: Path, archive: Path) -> None:
    names = {file.name for file in archive.rglob("*")}
    assert names == {
        "record.json", "runs.csv", "scores.parquet", "study.yaml", "table.csv", "comparisons.csv",
        "ladder.csv", "budget.csv",
    }  # fmt: skip
    scores = pd.read_parquet(archive / "scores.parquet")
    assert set(scores["run"]) == set(pd.read_csv(archive / "runs.csv")["run"])
    file = archive / "study.yaml"
    assert set(yaml.safe_load(file.read_text())) < set(
        yaml.safe_load((study / "study.yaml").read_text())
    )
    assert load_config(file, StudyConfig) == load_config(study / "study.yaml", StudyConfig)


def test_the_tables_of_an_archive_are_the_studys_without_the_images(
    study: Path, archive: Path, tmp_path: Path
) -> None:
    expected = csv_files(gather_study(reopen(study)))
    assert set(expected) >= {"results.csv", "rates.csv", "runs.csv", "budget.csv", "ladder.csv"}
    shutil.copytree(archive, tmp_path / "copy")
    (tmp_path / "copy" / "comparisons.csv").unlink()
    moved = study.parent / "data"
    moved.rename(tmp_path / "elsewhere")
    try:
        assert csv_files(study_results(read_archive(archive))) == expected
        done = here("report", tmp_path / "copy")
    finally:
        (tmp_path / "elsewhere").rename(moved)
    assert done.code == 0, done.err
    for name in ("results.csv", "comparisons.csv", "table.csv"):
        assert (tmp_path / "copy" / name).read_bytes() == (study / name).read_bytes(), name


def test_a_damaged_archive_and_a_folder_that_is_there_are_refused(
    study: Path, archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="exists already"):
        archive_study(reopen(study), study, archive)
    with pytest.raises(InputError, match="there is no such folder"):
        archive_study(reopen(study), study, tmp_path / "no" / "archive")
    bare = tmp_path / "bare"
    shutil.copytree(study, bare, ignore=shutil.ignore_patterns("store"))
    with pytest.raises(InputError, match="no training of the study has scores"):
        archive_study(reopen(bare), bare, tmp_path / "none")
    shutil.copytree(archive, tmp_path / "copy")
    (tmp_path / "copy" / "record.json").write_text("{}")
    with pytest.raises(InputError, match="no archive of a study, or a damaged one"):
        read_archive(tmp_path / "copy")


def test_domains_of_the_same_trainings_keep_their_own_test_scores(
    archive: Path, tmp_path: Path
) -> None:
    (record,) = read_archive(archive)
    (member, *_) = record.members
    val, test = record.scores(member)
    assert val is not None
    assert test is not None
    other = test.assign(**{name: 1 - test[name] for name in test if str(name).startswith("score_")})
    records = [
        replace(record, setup=replace(record.setup, domain=domain), scores=lambda _, own=own: own)
        for domain, own in (("a", (val, test)), ("b", (val, other)))
    ]
    write_archive(records, tmp_path / "two")
    for read, expected in zip(read_archive(tmp_path / "two"), (test, other), strict=True):
        tested = read.scores(member)[1]
        assert tested is not None
        pd.testing.assert_frame_equal(tested, expected, check_dtype=False)
