"""Table of the commits, hours and shares of the way of the studies in benchmarks/evidence."""

from __future__ import annotations

import numpy as np
from gallery_pages import EVIDENCE, STUDIES, Shown, table

from preceptor.evaluation.share_of_the_way import share_of_draws
from preceptor.results import StudyTables, read
from preceptor.runtime.formatting import DASH, number

FROZEN = {
    "spots_evidence": "1920acf",
    "spots_densenet": "6623e334",
    "brain_mri_planted": "84396a6",
    "circuit_boards": "d7e1103",
    "forged_evidence": "65c298f2",
    "road_cracks": "c092e15",
    "magnetic_tile": "98d03e6",
    "brain_mri": "a99feb68",
    "brain_mri_imagenet": "653319a4",
}
"""Commit in which the file of each study was frozen."""


def record_table() -> str:
    """A row for each study."""
    header = [
        "data", "file frozen in commit", "trainings", "hours of a process",
        "share of the way to the ceiling",
    ]  # fmt: skip
    return table(header, [_line(study) for study in STUDIES])


def _line(study: Shown) -> list[str]:
    tables = read(EVIDENCE / study.folder)
    runs = tables.runs.drop_duplicates("run")
    return [
        study.title,
        f"`{FROZEN[study.folder]}`",
        str(len(runs)),
        f"{runs['seconds'].sum() / 3600:.1f}",
        _share(tables),
    ]


def _share(tables: StudyTables) -> str:
    """Share of the way from the better baseline to the ceiling, with its interval over seeds."""
    found = tables.comparisons
    baseline = found[found["question"] == "RQ2"].nsmallest(1, "mean")
    ceiling = found[found["question"] == "ceiling"]
    ahead, short = (
        np.array(one["difference_by_seed"].iloc[0], dtype=np.float64) for one in (baseline, ceiling)
    )
    share = share_of_draws(np.zeros(len(ahead)), -ahead, -short)
    if share.share is None or share.low is None or share.high is None:
        return DASH
    return f"{_percent(share.share)} % ({_percent(share.low)} to {_percent(share.high)} %)"


def _percent(share: float) -> str:
    return number(100 * share, 0)
