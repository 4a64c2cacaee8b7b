"""An archive has no weights, gives the same tables, and is continued with more seeds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import yaml
from safetensors.torch import save_file

from preceptor.config.yaml_file import load_config, parse_config
from preceptor.errors import InputError
from preceptor.report.write import write_results
from preceptor.study.archive import archive_study
from preceptor.study.config import StudyConfig
from preceptor.study_folder import reopen
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import run_serially

TABLES = ("results.csv", "table.csv", "comparisons.csv", "runs.csv")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished study of two seeds."""
    folder = tmp_path_factory.mktemp("archive")
    squares(folder / "data")
    weights = folder / "weights.safetensors"
    save_file(timm.create_model("test_byobnet").state_dict(), weights)
    values = SQUARES_STUDY | {
        "manifest": str(folder / "data" / "manifest.csv"),
        "weights": str(weights),
        "seeds": [0, 1],
        "ceiling": False,
        "controls": ["shuffled"],
        "training": {"input_size": 32, "epochs": 1, "batch_size": 8},
    }
    result = run_serially(parse_config(values, StudyConfig), folder / "study")
    assert not result.failed
    return folder / "study"


def test_an_archive_gives_the_same_tables(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDER", str(study.parent))
    out = tmp_path / "archive"
    steps = archive_study(
        study,
        out,
        manifest="${FOLDER}/data/manifest.csv",
        weights="${FOLDER}/weights.safetensors",
    )
    records = list((out / "store").rglob("run.json"))
    assert steps == len(records) > 8
    names = {file.name for file in (out / "store").rglob("*") if file.is_file()}
    assert names == {"run.json", "metrics.csv", "scores.parquet"}
    assert str(study.parent) not in "".join(
        file.read_text() for file in [*records, out / "study.yaml", *out.glob("*.csv")]
    )
    for name in TABLES:
        (out / name).unlink()
    write_results(reopen(out), out)
    for name in TABLES:
        assert (out / name).read_bytes() == (study / name).read_bytes(), name


def test_steps_of_manifests_that_the_study_does_not_have_are_left_out(
    study: Path, tmp_path: Path
) -> None:
    shutil.copytree(study, tmp_path / "study")
    run = next((tmp_path / "study" / "store" / "runs").glob("*/run.json")).parent
    shutil.copytree(run, run.with_name("0" * 20))
    record = json.loads((run / "run.json").read_text())
    record["config"]["manifest"] = "/another/manifest.csv"
    (run.with_name("0" * 20) / "run.json").write_text(json.dumps(record))
    archive_study(tmp_path / "study", tmp_path / "archive", manifest="data/manifest.csv")
    names = {one.name for one in (tmp_path / "archive" / "store" / "runs").iterdir()}
    assert run.name in names
    assert "0" * 20 not in names


def test_an_archive_is_continued(study: Path, tmp_path: Path) -> None:
    archive_study(study, tmp_path / "more")
    file = tmp_path / "more" / "study.yaml"
    values = yaml.safe_load(file.read_text()) | {"seeds": [0, 1, 2]}
    (tmp_path / "three.yaml").write_text(yaml.safe_dump(values))
    before = {one: one.stat().st_mtime_ns for one in tmp_path.rglob("run.json")}
    result = run_serially(load_config(tmp_path / "three.yaml", StudyConfig), tmp_path / "more")
    assert not result.failed
    after = {one: one.stat().st_mtime_ns for one in tmp_path.rglob("run.json")}
    assert after.items() > before.items()  # nothing of the two seeds is computed again


def test_maps_that_were_left_out_are_named(study: Path, tmp_path: Path) -> None:
    """Another α needs the maps of the Teachers, whose folders can be removed."""
    archive_study(study, tmp_path / "more")
    values = yaml.safe_load((tmp_path / "more" / "study.yaml").read_text()) | {"alphas": [0.5, 0.2]}
    config = parse_config(values, StudyConfig)
    result = run_serially(config, tmp_path / "more")
    told = {one.reason for one in result.failed.values() if not one.blocked}
    assert told
    for reason in told:
        found = re.fullmatch(
            r"maps: those of (\S+) were left out of an archive; remove this folder and that of its "
            r"Teacher, (\S+), and start again: both are computed anew.*", reason, re.DOTALL,
        )  # fmt: skip
        assert found is not None, reason
        for folder in found.groups():
            shutil.rmtree(folder, ignore_errors=True)
    assert not run_serially(config, tmp_path / "more").failed


def test_what_is_no_study_and_what_exists_are_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a study folder"):
        archive_study(tmp_path, tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        archive_study(study, tmp_path / "there")
    shared = tmp_path / "shared"
    shutil.copytree(study, shared, ignore=shutil.ignore_patterns("store"))
    values = yaml.safe_load((shared / "study.yaml").read_text()) | {"store": str(study / "store")}
    (shared / "study.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="shared store"):
        archive_study(shared, tmp_path / "out")
    values = yaml.safe_load((study / "study.yaml").read_text()) | {"weights": "none"}
    (shared / "study.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="no weights file"):
        archive_study(shared, tmp_path / "out", weights="w.safetensors")
    assert not (tmp_path / "out").exists()


def test_an_archive_of_a_study_whose_data_were_moved_has_all_runs(
    study: Path, tmp_path: Path
) -> None:
    """Ids do not depend on the place of the data, and records name the one of their training."""
    moved = tmp_path / "study"
    shutil.copytree(study, moved)
    values = yaml.safe_load((moved / "study.yaml").read_text())
    old = values["manifest"]
    shutil.copytree(Path(old).parent, tmp_path / "new")
    values["manifest"] = str(tmp_path / "new" / "manifest.csv")
    (moved / "study.yaml").write_text(yaml.safe_dump(values))
    steps = archive_study(moved, tmp_path / "archive", manifest="data/manifest.csv")
    assert steps == len(list((study / "store").rglob("run.json")))
    records = list((tmp_path / "archive" / "store").rglob("run.json"))
    assert not [one for one in records if old in one.read_text()]

    (moved / "planned_runs.json").unlink()
    with pytest.raises(InputError, match=r"planned_runs\.json is missing or damaged, and "):
        archive_study(moved, tmp_path / "other", manifest="data/manifest.csv")
    assert not (tmp_path / "other").exists()
