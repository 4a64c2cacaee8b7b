"""Tables of results in the documentation: those of the archives."""

from __future__ import annotations

import math
from typing import Any

import pytest

from preceptor.results import read
from preceptor.runtime.formatting import interval, number
from tests.documents import PAGES, ROOT, docs_module

gallery = docs_module("gallery_pages")
docs_module("difference")
docs_module("agreement")
budgets = docs_module("budget_tables")
docs_module("record_table")
docs_module("places_table")
docs_module("image_intervals")
docs_module("predictor_table")
docs_module("steps_table")
evidence = docs_module("evidence_tables")
ROWS = [evidence.row_of(study) for study in gallery.STUDIES]


@pytest.mark.parametrize("name", evidence.PAGES)
def test_the_tables_of_a_page_are_those_of_the_archives(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert evidence.BLOCK.search(page)
    assert evidence.with_tables(page, ROWS) == page, "run python docs/evidence_tables.py"


def test_every_page_with_a_table_is_known() -> None:
    found = {
        page.relative_to(ROOT).as_posix()
        for page in PAGES
        if evidence.BLOCK.search(page.read_text(encoding="utf-8"))
    }
    assert found == set(evidence.PAGES)


def test_the_figure_is_that_of_the_archives() -> None:
    assert evidence.FIGURE.read_text(encoding="utf-8") == evidence.figure(ROWS)


@pytest.mark.parametrize("one", budgets.BUDGETS, ids=lambda one: one.folder)
def test_the_figure_of_a_budget_is_that_of_its_archive(one: Any) -> None:
    file = evidence.FIGURE.parent / one.figure
    assert file.read_text(encoding="utf-8") == budgets.budget_figure(one)


@pytest.mark.parametrize("one", budgets.BUDGETS, ids=lambda one: one.folder)
def test_a_point_of_a_budget_has_the_numbers_of_every_seed(one: Any) -> None:
    tables = read(gallery.EVIDENCE / one.folder)
    for _, point in tables.budget.iterrows():
        assert point["mean"] == pytest.approx(
            sum(point["by_seed"]) / len(point["by_seed"]), abs=1e-5
        )
    text = budgets.budget_table(one)
    for _, point in tables.budget[tables.budget["line"] == "student"].iterrows():
        assert f"| {point['size']:,} |" in text
        assert f" {point['mean']:.3f} ± " in text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.study.folder)
def test_a_row_has_the_numbers_of_every_seed(row: Any) -> None:
    """Recomputed from the AUC of every seed, at the α that the main table names."""
    tables = read(gallery.EVIDENCE / row.study.folder)
    table = tables.table[
        (tables.table["set"] == row.study.primary) & (tables.table["source"] == "")
    ]
    results = tables.results
    results = results[(results["set"] == row.study.primary) & (results["source"] == "")]
    for role in ("student", "baseline1", "baseline2", "shuffled", "centre", "ceiling"):
        (one,) = table[table["key"] == role].to_dict("records")
        seeds = results[(results["role"] == role) & (results["alpha"] == float(one["alpha"]))]
        means = seeds.groupby("teacher", dropna=False)["auc"].mean()
        assert any(math.isclose(getattr(row, role), mean, abs_tol=1e-5) for mean in means)


def test_the_section_on_planted_cracks_has_the_numbers_of_its_archive() -> None:
    page = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    section = " ".join(
        page.partition("### With a planted stamp\n")[2].partition("\n## ")[0].split()
    )
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    part = results.partition("## Road cracks with a planted stamp")[2].partition("\n## ")[0]
    tables = read(gallery.EVIDENCE / "road_cracks_planted")
    means = tables.table[(tables.table["set"] == "test-unseen") & (tables.table["source"] == "")]
    for one in means[means["key"] != "baseline1_paper"].to_dict("records"):
        assert f"| {number(one['mean'])} ± {number(one['std'])} |" in part
    asked = {"baseline1", "baseline2", "shuffled", "shuffled_human", "pca"}
    rows = tables.comparisons[tables.comparisons["question"].isin(["RQ2", "control", "ceiling"])]
    for one in rows[rows["key_b"] != "dfr"].to_dict("records"):
        mean, ends = number(one["mean"], sign=True), interval(one["low"], one["high"])
        over_images = interval(one["image_low"], one["image_high"])
        assert f"| {mean} ({ends}) | {over_images} |" in part
        if one["key_b"] in asked:
            short = section.replace("(", "").replace(",", "")
            assert f"{mean} {ends}" in short
