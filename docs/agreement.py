"""Mean correlation of the maps of a role with human maps, in the archives of studies."""

from __future__ import annotations

import math

from preceptor.evaluation.split_names import kind_or_none
from preceptor.results import StudyTables
from preceptor.results.ladder import map_agreement


def mean_agreement(tables: StudyTables, role: str, alpha: float | None = None) -> float:
    """Mean over validation sets and seeds; NaN if the archive has no records of runs.

    Args:
        tables: Tables of a study.
        role: Role of the runs.
        alpha: Their α; None = any.
    """
    runs, sets = tables.runs, tables.results["set"].unique()
    own = runs[runs["role"] == role]
    if alpha is not None:
        own = own[own["alpha"] == alpha]
    if own.empty:
        return math.nan
    return float(map_agreement(own, [name for name in sets if kind_or_none(name) == "val"]).mean())
