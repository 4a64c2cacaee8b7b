"""Tables and figure of the annotation budgets, from the archives in benchmarks/evidence."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from difference import Difference
from gallery_pages import EVIDENCE, table

from preceptor.evaluation.paired_tests import paired_difference
from preceptor.report.budget_figure import auc_curves
from preceptor.report.export import standalone
from preceptor.results import read
from preceptor.runtime.formatting import number

BACKBONE = "test_byobnet"
LEGEND = [
    ("student", "Student"),
    ("mapper", "mapper"),
    ("baseline1", "Baseline 1"),
    ("baseline2", "no maps"),
    ("ceiling", "all human maps"),
    ("mapper_all", "mapper, all maps"),
]


@dataclass(frozen=True)
class Budget:
    """Study of an annotation budget with an archive.

    Args:
        folder: Folder of its tables in benchmarks/evidence.
        primary: Evaluation set of the curves.
        figure: File of its figure in docs/images.
    """

    folder: str
    primary: str
    figure: str


BUDGETS = (
    Budget("brain_mri_budget", "test-unseen", "budget-brain-mri.svg"),
    Budget("spots_budget", "test-seen", "budget-spots.svg"),
)


def budget_table(budget: Budget) -> str:
    """A row for each number of annotated images, and one for all of them."""
    tables = read(EVIDENCE / budget.folder)
    curve, whole = tables.budget, tables.table
    whole = whole[(whole["set"] == budget.primary) & (whole["source"] == "")].set_index("key")
    without = _of_seeds(tables.results, "baseline2", budget.primary)
    lines = []
    for size, part in curve.groupby("size"):
        one = part.set_index("line")
        student, ours = one.loc["student"], one.loc["baseline1"]
        lines.append(
            [
                f"{size:,}", _cell(ours), _cell(student), _cell(one.loc["mapper"]),
                number(one.loc["teacher_maps", "mean"], 2),
                _minus(student, _seeds(ours)), _minus(student, without),
            ]
        )  # fmt: skip
    ceiling, mapper = (_cell(whole.loc[key]) for key in ("ceiling", "mapper_all"))
    lines.append(["all", ceiling, ceiling, mapper, "", "", ""])
    header = [
        "examined", "Baseline 1", "Student", "mapper", "Teacher's maps, r",
        "Student minus Baseline 1", "Student minus no maps",
    ]  # fmt: skip
    return table(header, lines)


def budget_figure(budget: Budget) -> str:
    """Figure of a budget as an SVG file."""
    tables = read(EVIDENCE / budget.folder)
    drawn = auc_curves(tables.budget, tables.table, budget.primary, BACKBONE)
    assert drawn is not None
    return standalone(drawn, LEGEND)


def _of_seeds(results: pd.DataFrame, role: str, primary: str) -> dict[int, float]:
    """AUC of the runs of a role on a set by seed."""
    own = results[
        (results["role"] == role) & (results["set"] == primary) & (results["source"] == "")
    ]
    return dict(zip(own["seed"].astype(int), own["auc"], strict=True))


def _seeds(row: pd.Series) -> dict[int, float]:
    return dict(zip(map(int, row["seeds"]), row["by_seed"], strict=True))


def _minus(row: pd.Series, other: dict[int, float]) -> str:
    """Paired difference of a point of a curve from another row, over the seeds of both."""
    own = _seeds(row)
    common = sorted(set(own) & set(other))
    found = paired_difference([own[seed] for seed in common], [other[seed] for seed in common])
    return Difference(found.mean, found.low, found.high, found.p).text


def _cell(row: pd.Series) -> str:
    return f"{number(row['mean'])} ± {number(row['std'])}"
