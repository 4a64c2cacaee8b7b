"""Table of what could predict the gain of the place, from the archives in benchmarks/evidence."""

from __future__ import annotations

import pandas as pd
from agreement import mean_agreement
from difference import Difference
from gallery_pages import EVIDENCE, STUDIES, Shown, marks_of, table

from preceptor.results import StudyTables, read
from preceptor.runtime.formatting import number


def predictor_table() -> str:
    """A row for each study, the largest loss of AUC without maps first."""
    header = [
        "data", "no maps: AUC on `val`", "lost on the primary set", "no maps: r", "mapper: r",
        "covered ÷ area", "annotated", "Student minus any map",
    ]  # fmt: skip
    rows = [(study, read(EVIDENCE / study.folder)) for study in STUDIES]
    rows.sort(key=lambda row: _lost(*row), reverse=True)
    return table(header, [_line(study, tables) for study, tables in rows])


def _line(study: Shown, tables: StudyTables) -> list[str]:
    marks = marks_of(study)
    ladder = tables.ladder
    (rung,) = ladder[(ladder["set"] == study.primary) & (ladder["rung"] == "teacher")].to_dict(
        "records"
    )
    gain = Difference(rung["gain"], rung["gain_low"], rung["gain_high"], rung["p"], shown=False)
    return [
        study.title,
        number(_without(tables, "val")),
        number(_lost(study, tables)),
        number(mean_agreement(tables, "baseline2"), 2),
        number(mean_agreement(tables, "mapper"), 2),
        number(marks.overlap / marks.area, 1),
        study.marks,
        gain.text,
    ]


def _without(tables: StudyTables, name: str) -> float:
    """AUC of Baseline 2 on a set, mean over the repeats."""
    whole: pd.DataFrame = tables.table
    own = whole[(whole["key"] == "baseline2") & (whole["set"] == name) & (whole["source"] == "")]
    return float(own["mean"].iloc[0])


def _lost(study: Shown, tables: StudyTables) -> float:
    return _without(tables, "val") - _without(tables, study.primary)
