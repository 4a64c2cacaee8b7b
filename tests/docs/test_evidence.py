"""Tables of results in the documentation: those of the archives."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.documents import ARCHIVE, PAGES, ROOT, docs_module

evidence = docs_module("evidence_tables")


@pytest.mark.parametrize("name", evidence.PAGES)
def test_the_tables_of_a_page_are_those_of_the_archives(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert evidence.BLOCK.search(page)
    assert evidence.with_tables(page) == page, "run python docs/evidence_tables.py"


def test_every_page_with_a_table_is_known() -> None:
    found = {
        page.relative_to(ROOT).as_posix()
        for page in PAGES
        if evidence.BLOCK.search(page.read_text(encoding="utf-8"))
    }
    assert found == set(evidence.PAGES)


@pytest.mark.parametrize("study", evidence.STUDIES + evidence.FEW, ids=lambda one: one.folder)
def test_a_mean_of_a_table_is_that_of_the_archived_scores(study: object) -> None:
    """The AUC of every seed, ranked by the log-odds of the archived scores."""
    folder = evidence.EVIDENCE / study.folder  # type: ignore[attr-defined]
    scores, runs = pd.read_parquet(folder / "scores.parquet"), pd.read_csv(folder / "runs.csv")
    table = pd.read_csv(folder / "table.csv", keep_default_na=False)
    primary = study.primary  # type: ignore[attr-defined]
    row = table[(table["set"] == primary) & (table["source"] == "") & (table["key"] == "baseline2")]
    found = []
    for run in runs[(runs["role"] == "baseline2") & (runs["alpha"] == 1)]["run"]:
        own = scores[(scores["run"] == run) & (scores["split"] == primary)]
        (positive,) = {"tumour", "forged", "crack", "defect"} & {
            name.removeprefix("score_") for name in own
        }
        truth = own["label"] == positive
        values = own[[name for name in own if name.startswith("score_")]].to_numpy(np.float64)
        at = [name for name in own if name.startswith("score_")].index(f"score_{positive}")
        odds = np.log(values[:, at]) - np.log(np.delete(values, at, axis=1).sum(1))
        u = stats.mannwhitneyu(odds[truth], odds[~truth]).statistic
        found.append(u / (truth.sum() * (~truth).sum()))
    assert np.mean(found) == pytest.approx(float(row["mean"].iloc[0]), abs=1e-5)


def test_a_pooled_mean_of_equal_studies_is_their_mean() -> None:
    strata = [
        np.array([0.01, 0.02, 0.03]),
        np.array([0.02, 0.03, 0.04]),
        np.array([0.015, 0.025, 0.035]),
    ]
    found, new = evidence.pooled_difference(strata)
    assert new[0] < found.low < found.high < new[1]
    assert found.mean == pytest.approx(0.025)
    assert found.low < 0.025 < found.high
    assert found.p == 2 / 2**9  # the observed signs and their opposites


def test_claims_in_sentences_have_the_numbers_of_the_tables() -> None:
    pages = [ROOT / "docs" / "evidence.md", ARCHIVE]
    text = " ".join(" ".join(page.read_text(encoding="utf-8") for page in pages).split())
    boards = next(one for one in evidence.STUDIES if one.folder == "circuit_boards")
    marked, labels = (evidence.mean_auc(boards, key) for key in ("baseline1", "baseline2"))
    assert f"alone reach {marked:.3f}, where 1,245 labels without marks reach {labels:.3f}" in text
    ceiling = evidence.of_runs("spots_evidence", "ceiling", 0.1)
    over = evidence.paired(evidence.at_size("spots_budget", "student", 600), ceiling)
    assert f"is shown ({over.text.replace(' (', ', ').rstrip(')')})" in text


def test_figures_have_the_numbers_of_the_archives() -> None:
    for name, numbers in evidence.plotted().items():
        tree = ElementTree.parse(evidence.IMAGES / f"{name}.svg")
        described = tree.findtext(".//{http://purl.org/dc/elements/1.1/}description")
        assert described == numbers, f"{name}: run python docs/evidence_tables.py"
