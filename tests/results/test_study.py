"""Several manifests in one study: each by itself, one tested family, one table of domains."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from preceptor.config.files import load_config, parse_config
from preceptor.errors import InputError
from preceptor.metrics.paired_tests import holm, paired_difference
from preceptor.models.build import load_model
from preceptor.study.config import StudyConfig
from preceptor.study_folder import open_study, reopen
from tests.commands import here
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import run_serially

SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "seeds": 2,
    "controls": [],
    "ceiling": False,
    "training": {"input_size": 32, "epochs": 1, "batch_size": 8, "schedule": "constant"},
}
TABLES = ("results.csv", "rates.csv", "table.csv", "summary.md", "comparisons.csv", "domains.csv")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domains")
    squares(folder / "one")
    squares(folder / "two", classes=("plain", "marked", "spotted")[:2], size=(40, 24), seed=1)
    domains = {
        "First": {"manifest": "one/manifest.csv"},
        "The other": {"manifest": "two/manifest.csv", "primary": "test"},
    }
    target = folder / "study.yaml"
    target.write_text(yaml.safe_dump(SETTINGS | {"domains": domains}))
    return target


@pytest.fixture(scope="module")
def finished(file: Path) -> Path:
    out = file.parent / "study"
    result = run_serially(load_config(file, StudyConfig), out)
    assert not result.failed
    assert result.missing == 0
    return out


def test_every_domain_has_its_own_protocol(finished: Path) -> None:
    table = pd.read_csv(finished / "table.csv")
    whole = table[table["source"].isna()]
    found = {name: set(part["set"]) for name, part in whole.groupby("domain")}
    assert found == {"First": {"val", "test", "test-unseen"}} | {
        "The other": {"val", "test", "test-unseen"}
    }
    plans = reopen(finished).plans
    assert list(plans) == ["First", "The other"]
    assert [plan.protocol.primary for plan in plans.values()] == ["test-unseen", "test"]
    runs = [{member.run for member in plan.members} for plan in plans.values()]
    assert not runs[0] & runs[1]
    chosen = json.loads((finished / "selection.json").read_text())
    assert set(chosen) == {"First", "The other"}
    for name in ("first", "the-other"):
        assert load_model(finished / "best" / name).spec.positive == "marked"
        assert (finished / "best" / name / "README.md").read_text().startswith("# test_byobnet")


def test_the_family_is_corrected_over_all_domains(finished: Path) -> None:
    domains = pd.read_csv(finished / "domains.csv")
    assert list(domains["domain"]) == ["First", "First", "The other", "The other"]
    np.testing.assert_allclose(domains["p_holm"], holm(domains["p"]))
    compared = pd.read_csv(finished / "comparisons.csv")
    family = compared[compared["question"] == "RQ2"]
    np.testing.assert_allclose(family["p_holm"], domains["p_holm"])


def test_the_row_of_a_domain_is_made_of_its_runs(finished: Path) -> None:
    domains = pd.read_csv(finished / "domains.csv")
    row = domains[(domains["domain"] == "The other") & domains["b"].str.startswith("Baseline 2")]
    results = pd.read_csv(finished / "results.csv")
    here = results[
        (results["domain"] == "The other") & (results["set"] == "test") & results["source"].isna()
    ]
    sides = [
        here[here["role"] == role].drop_duplicates("seed").set_index("seed")["auc"]
        for role in ("student", "baseline2")
    ]
    assert row["student"].item() == pytest.approx(sides[0].mean(), abs=1e-5)
    assert row["baseline"].item() == pytest.approx(sides[1].mean(), abs=1e-5)
    expected = paired_difference(*(side.sort_index().to_numpy() for side in sides))
    assert row["low"].item() == pytest.approx(expected.low, abs=1e-5)


def test_a_domain_trains_what_a_study_of_its_own_would(finished: Path, file: Path) -> None:
    alone = parse_config(
        SETTINGS | {"manifest": str(file.parent / "one" / "manifest.csv")}, StudyConfig
    )
    opened = open_study(alone, finished / "alone", run=False, report_to=lambda line: None)
    first, later = opened.outline()
    known = {folder.parent.name for folder in (finished / "store").glob("*/*/run.json")}
    mine = {step.id for step in [*first, *later] if step.kind != "select"}
    assert mine <= known


def test_the_same_command_repeats_nothing_and_ends_with_three_lines(
    file: Path, finished: Path
) -> None:
    """Here nothing is computed: it would be by workers, which are not patched away."""
    before = {name: (finished / name).read_bytes() for name in TABLES}
    runs = {one: one.stat().st_mtime_ns for one in finished.glob("store/*/*/run.json")}
    done = here("study", file, "--out", finished, "--jobs", 1)
    assert done.code == 0, done.err
    assert {name: (finished / name).read_bytes() for name in TABLES} == before
    assert {one: one.stat().st_mtime_ns for one in finished.glob("store/*/*/run.json")} == runs
    said = json.loads((finished / "summary.json").read_text())["closing"]
    lines = " ".join(done.out.split())
    assert f"Found: {said['found']} How sure: {said['sure']} Look at: " in lines
    assert lines.endswith(f"report.html; best/ has {said['best']}")
    assert all(
        name in said["best"] for name in ("First: the Student (", "The other: the Student (")
    )
    assert all(len(line) <= 80 or "/" in line for line in done.out.splitlines()[-8:])
    summary = (finished / "summary.md").read_text()
    assert re.findall(r"^\*\*(.*?)(?::|, mean)", summary, re.MULTILINE) == [
        "AUC by domain",
        "test-unseen",
        "test",
    ]


def test_the_page_has_a_chapter_a_domain(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert page.count('<h2 class="chapter"') == 2
    assert ">RQ4: does it help in other domains?</h2>" in page
    assert 'id="first-rq1"' in page
    assert "of 2 domains" in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest": "m.csv"}, "one of manifest and domains"),
        ({"domains": {}}, "one of manifest and domains"),
        ({"domains": {"a/b": {"manifest": "m.csv"}}}, "'a/b' is not a valid name"),
        ({"domains": {"a": {"manifest": "m.csv", "seed": 1}}}, "unknown key"),
        ({"budget": [5, 5]}, "duplicate"),
        ({"domains": {"a": {}}}, "missing"),
        ({"threshold": "fdr=2"}, "write eer, or one such"),
        ({"budget": [0]}, "above 0"),
        ({"terms": "iris"}, "'pad', 'medical' or 'generic'"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], words: str) -> None:
    values = SETTINGS | {"domains": {"a": {"manifest": "m.csv"}}} | change
    with pytest.raises(InputError, match=words):
        parse_config(values, StudyConfig)


def test_the_problems_of_all_domains_are_told_at_once(file: Path, tmp_path: Path) -> None:
    domains = {
        "Good": {"manifest": str(file.parent / "one" / "manifest.csv")},
        "Bad": {"manifest": str(file.parent / "two" / "manifest.csv"), "primary": "test-gan"},
        "Worse": {"manifest": str(file.parent / "two" / "manifest.csv"), "primary": "val"},
    }
    study = parse_config(SETTINGS | {"domains": domains}, StudyConfig)
    with pytest.raises(InputError) as error:
        open_study(study, tmp_path, run=False, report_to=lambda line: None)
    assert "domain Bad: primary: 'test-gan'" in str(error.value)
    assert "domain Worse: primary: 'val'" in str(error.value)
    assert "Good" not in str(error.value)


def test_what_was_removed_of_the_report_is_written_again(file: Path, finished: Path) -> None:
    """And the tables, which are the same bytes."""
    best = sorted(one.relative_to(finished) for one in (finished / "best").rglob("*"))
    tables = {name: (finished / name).read_bytes() for name in TABLES}
    assert best
    for name in ("best", "figures"):
        shutil.rmtree(finished / name)
    assert run_serially(load_config(file, StudyConfig), finished).computed == 0
    assert all((finished / name).is_dir() for name in ("best", "figures"))
    assert sorted(one.relative_to(finished) for one in (finished / "best").rglob("*")) == best
    assert {name: (finished / name).read_bytes() for name in TABLES} == tables
