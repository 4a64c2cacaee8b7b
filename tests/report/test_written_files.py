"""Which files a report has after the study has changed: none of an earlier config is left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from preceptor.config.files import parse_config
from preceptor.models.build import build_model, check_model_files, load_model, save_model
from preceptor.report.write import WrittenReport, write_results
from preceptor.results.tables import BUDGET, read_table
from preceptor.study.config import StudyConfig
from preceptor.study.plan import StudyPlan
from preceptor.study_folder import read_study
from preceptor.utils.results import checksum
from tests.datasets import squares
from tests.report.conftest import effect
from tests.studies import study, write_down


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two manifests and an untrained model."""
    folder = tmp_path_factory.mktemp("data")
    squares(folder / "a", size=(8, 8))
    squares(folder / "b", size=(8, 8))
    arguments = {"output_stride": 8}
    model = build_model(
        "test_byobnet",
        ["marked", "plain"],
        input_size=32,
        positive="marked",
        backbone_args=arguments,
    )
    save_model(model, folder / "model")
    return folder


def small(folder: Path) -> StudyConfig:
    return study(folder / "manifest.csv", controls=(), ceiling=False)


def reported(config: StudyConfig, data: Path, out: Path) -> tuple[StudyPlan, WrittenReport]:
    """A study whose results are written down, and its report."""
    made = read_study(config, out)
    write_down(made, effect, data / "model")
    return made, write_results(made, out, {})


def of_two(data: Path) -> StudyConfig:
    """The study of one domain, on two."""
    plain = small(data / "a")
    values: dict[str, Any] = plain.model_dump(mode="json", exclude={"manifest", "primary"})
    domains = {
        name: {"manifest": str(data / name / "manifest.csv"), "primary": "test-unseen"}
        for name in ("a", "b")
    }
    return parse_config(values | {"domains": domains}, StudyConfig)


def names(folder: Path) -> set[str]:
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}


def test_nothing_of_an_earlier_config_is_left(data: Path, tmp_path: Path) -> None:
    """A study with a budget, of two domains, of one without a budget, and with other seeds."""
    plain, best = small(data / "a"), tmp_path / "best"
    _, before = reported(plain.model_copy(update={"budget": (4, 8)}), data, tmp_path)
    assert "budget.csv" in before.files
    assert len(read_table(tmp_path / "budget.csv", BUDGET))

    # The models of one domain and of several are never together.
    files = names(best)
    _, several = reported(of_two(data), data, tmp_path)
    assert "domains.csv" in several.files
    assert names(best) == {f"{name}/{file}" for name in "ab" for file in files}
    made, single = reported(plain, data, tmp_path)
    assert names(best) == files
    assert set(before.files) - set(single.files) == {"budget.csv"}
    assert set(several.files) - set(single.files) == {"domains.csv"}
    assert not (tmp_path / "budget.csv").exists()
    assert "budget.csv" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    kept = {name: (best / name).read_bytes() for name in files}

    other = read_study(plain.model_copy(update={"seeds": (7, 8)}), tmp_path)
    other.start()
    shutil.copytree(best, tmp_path / "kept")
    written = write_results(other, tmp_path, {})
    assert not best.exists()
    assert "best/" not in written.files
    assert "best/" not in (tmp_path / "report.html").read_text(encoding="utf-8")

    # A model is kept without the weights in the folder of its own run alone.
    (tmp_path / "kept").rename(best)
    own = check_model_files(best)["model.safetensors"]
    runs = [run for run in (tmp_path / "store" / "runs").iterdir() if (run / "model").exists()]
    assert all(checksum(run, "model/model.safetensors") == own for run in runs)
    for run in runs:
        shutil.rmtree(run / "model")
    write_results(made, tmp_path, {})
    assert {name: (best / name).read_bytes() for name in names(best)} == kept
    changed = load_model(data / "model")
    for weights in changed.backbone.parameters():
        weights.data.add_(1.0)
    save_model(changed, best)
    write_results(made, tmp_path, {})
    assert not best.exists()
