"""Table of four times the steps on brain MRI with a planted stamp, from benchmarks/evidence."""

from __future__ import annotations

import pandas as pd
from difference import Difference
from gallery_pages import EVIDENCE, table

from preceptor.evaluation.paired_tests import paired_difference
from preceptor.results import StudyTables, read
from preceptor.runtime.formatting import number

USUAL, LONGER, PRIMARY = "brain_mri_planted_mapper", "brain_mri_steps", "test-unseen"
ROWS = {
    "baseline1": "Baseline 1",
    "baseline2": "Baseline 2, no maps",
    "shuffled": "the Teacher's maps, shuffled",
    "shuffled_human": "all human maps, shuffled",
    "student": "Student",
    "ceiling": "all human maps",
    "mapper": "mapper, annotated",
    "mapper_all": "mapper, all maps",
}


def steps_table() -> str:
    """A row for each role: mean AUC of the same seeds at both lengths, and the differences."""
    usual, longer = read(EVIDENCE / USUAL), read(EVIDENCE / LONGER)
    students = _of_seeds(longer, longer, "student")
    lines = []
    for role, name in ROWS.items():
        before, after = _of_seeds(usual, longer, role), _of_seeds(longer, longer, role)
        ahead = "" if role == "student" else _minus(students, after)
        lines.append(
            [name, number(before.mean()), number(after.mean()), _minus(after, before), ahead]
        )
    header = [
        "row", "700 steps", "2,800 steps", "2,800 minus 700 steps",
        "Student minus the row, 2,800 steps",
    ]  # fmt: skip
    return table(header, lines)


def _of_seeds(tables: StudyTables, longer: StudyTables, role: str) -> pd.Series:
    """AUC on the primary set by seed, of the seeds and the α of the longer study."""
    alphas = longer.table.drop_duplicates("key").set_index("key")["alpha"]
    seeds = longer.results["seed"].unique()
    found = tables.results
    found = found[
        (found["role"] == role)
        & (found["set"] == PRIMARY)
        & (found["source"] == "")
        & (found["alpha"] == float(alphas[role]))
        & found["seed"].isin(seeds)
    ].set_index("seed")["auc"]
    assert sorted(found.index) == sorted(seeds), role
    return found.sort_index()


def _minus(a: pd.Series, b: pd.Series) -> str:
    paired = paired_difference(a.to_numpy(), b.to_numpy())
    return Difference(paired.mean, paired.low, paired.high, paired.p).text
