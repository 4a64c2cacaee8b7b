"""Figures of the annotation budget: AUC and map agreement by number of annotated images."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from preceptor.report.size_curves import Curve, curves_by_size
from preceptor.report.svg import Figure
from preceptor.results.budgets import enough
from preceptor.results.domain import Results

_AUC_CURVES = {
    "baseline1": Curve("Baseline 1", "baseline1"),
    "student": Curve("Student", "student"),
    "mapper": Curve("Mapper", "mapper"),
}
_MAPS_CURVES = {"teacher_maps": Curve("Teacher's maps", "teacher")}
_ALL_IMAGES = ("baseline2", "ceiling", "mapper_all")  # rows that use labels or maps of all images


def budget_plot(
    results: Results, backbone: str, gain: float, sizes: Sequence[int]
) -> Figure | None:
    """AUC of Baseline 1, the Student and a mapper on the primary set by number of annotated images.

    See `auc_curves`; the number from which more annotations are known to increase the Student's AUC
    by less than `gain` is marked.
    """
    found = enough(results.budget, backbone, "student", gain, sizes)
    mark = found.size if found is not None else None
    return auc_curves(results.budget, results.table, results.primary, backbone, mark)


def auc_curves(
    budget: pd.DataFrame,
    table: pd.DataFrame,
    primary: str,
    backbone: str,
    mark: int | None = None,
) -> Figure | None:
    """AUC of Baseline 1, the Student and a mapper on a set by number of annotated images.

    Bands are 95 % intervals of the mean over seeds. Baseline 2, the ceiling and a mapper of the
    same backbone that is trained on all human maps do not depend on this number and are horizontal
    lines.

    Args:
        budget: Curves, see `preceptor.results.budgets.budget_curve`.
        table: Main table.
        primary: Evaluation set of the curves.
        backbone: Backbone of the curves.
        mark: Number of annotated images with a vertical line; None = none.

    Returns:
        The figure; None without a curve.
    """
    if budget.empty:
        return None
    curve = budget[(budget["backbone"] == backbone) & (budget["line"] != "teacher_maps")]
    across: dict[str, float] = {}
    if not table.empty:
        whole = table[(table["set"] == primary) & (table["source"] == "")]
        means = dict(whole.loc[whole["backbone"] == backbone, ["key", "mean"]].to_numpy())
        across = {key: float(means[key]) for key in _ALL_IMAGES if key in means}
    title = f"{backbone}: AUC on {primary} over the number of annotated images"
    return curves_by_size(curve, _AUC_CURVES, title, f"AUC on {primary}", across, mark)


def maps_plot(results: Results, backbone: str) -> Figure | None:
    """Correlation of the Teacher's maps with human maps of validation images."""
    if results.budget.empty:
        return None
    curve = results.budget
    curve = curve[(curve["backbone"] == backbone) & (curve["line"] == "teacher_maps")]
    title = "The Teacher's maps over the number of annotated images"
    return curves_by_size(curve, _MAPS_CURVES, title, "r with human maps (validation)")
