"""Figures of the annotation budget: AUC and map agreement by number of annotated images."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from preceptor.report.svg import (
    LETTER,
    WIDTH,
    Element,
    Figure,
    area,
    digits,
    dot,
    label,
    line,
    path,
    sideways,
    svg,
    ticks,
)
from preceptor.results.budgets import enough
from preceptor.results.domain import Results
from preceptor.results.rows import records
from preceptor.runtime.formatting import number

_NAMES = {
    "baseline1": "Baseline 1",
    "student": "Student",
    "mapper": "Mapper",
    "teacher_maps": "Teacher's maps",
}
_ALL_IMAGES = ("baseline2", "ceiling", "mapper_all")  # rows that use labels or maps of all images


def budget_plot(results: Results, backbone: str, gain: float) -> Figure | None:
    """AUC of Baseline 1, the Student and a mapper on the primary set by number of annotated images.

    See `auc_curves`; the number after which more annotations increase the Student's AUC by less
    than `gain` is marked.
    """
    found = enough(results.budget_steps, backbone, "student", gain)
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
    return _curves(curve, title, f"AUC on {primary}", across, mark)


def maps_plot(results: Results, backbone: str) -> Figure | None:
    """Correlation of the Teacher's maps with human maps of validation images."""
    if results.budget.empty:
        return None
    curve = results.budget
    curve = curve[(curve["backbone"] == backbone) & (curve["line"] == "teacher_maps")]
    title = "The Teacher's maps over the number of annotated images"
    return _curves(curve, title, "r with human maps (validation)", {}, None)


def _curves(
    curve: pd.DataFrame, title: str, axis: str, across: dict[str, float], mark: int | None
) -> Figure | None:
    curve = curve[curve["mean"].notna()]
    if curve.empty:
        return None
    values = [*curve["mean"], *curve["low"].dropna(), *curve["high"].dropna(), *across.values()]
    lowest, highest = max(min(values), -1.0), min(max(values), 1.0)  # of an AUC and of r
    scale = ticks(lowest, highest)
    sizes = sorted(int(size) for size in curve["size"].unique())
    left, right, top, bottom = 58.0, WIDTH - 20.0, 24.0, 220.0
    first, span = math.log(sizes[0]), math.log(sizes[-1] / sizes[0]) or 1.0

    def x(size: float) -> float:
        return left + 16 + (math.log(size) - first) / span * (right - left - 32)

    def y(value: float) -> float:
        share = (min(max(value, scale[0]), scale[-1]) - scale[0]) / (scale[-1] - scale[0])
        return bottom - share * (bottom - top)

    body: list[Element] = []
    for value in scale:
        body.append(line(left, y(value), right, y(value), "grid"))
        body.append(label(left - 7, y(value) + 4, number(value, digits(scale)), "tick", "end"))
    minutes = curve.drop_duplicates("size").set_index("size")["minutes"]
    free = 0.0  # smallest position at which a label does not touch the previous one
    for size in sizes:
        texts = [f"{size:,}"]
        if math.isfinite(minutes[size]):
            texts.append(f"{minutes[size]:,.0f} min")
        half = LETTER * max(map(len, texts)) / 2
        if x(size) - half < free:
            continue
        free = x(size) + half + 6
        for place, text in enumerate(texts):
            body.append(label(x(size), bottom + 17 + 15 * place, text, "tick", "middle"))
    if mark is not None:
        body.append(line(x(mark), top, x(mark), bottom, "chance"))
        anchor = "start" if x(mark) + 60 < WIDTH else "end"  # the word is 53 wide
        body.append(label(x(mark), top - 8, "enough", "axis", anchor))
    for key, value in across.items():
        body.append(line(left, y(value), right, y(value), "curve across", key))
    said = []
    for name in _NAMES:
        mine = records(curve[curve["line"] == name].sort_values("size"))
        if not mine:
            continue
        key = {"teacher_maps": "teacher"}.get(name, name)
        known = [row for row in mine if math.isfinite(row["low"])]
        upper, lower = (
            [(x(row["size"]), y(row[side])) for row in known] for side in ("high", "low")
        )
        body += [area(upper, lower, key)] if len(known) > 1 else []
        body.append(path([(x(row["size"]), y(row["mean"])) for row in mine], key))
        for row in mine:
            body.append(dot(x(row["size"]), y(row["mean"]), 4, key, _tip(name, row)))
        said.append(
            f"{_NAMES[name]} "
            + ", ".join(f"{number(row['mean'])} at {row['size']:,}" for row in mine)
        )
    timed = minutes.notna().any()
    under = "annotated images (log scale)" + (", minutes of annotation" if timed else "")
    deep = bottom + (50 if timed else 36)
    body.append(label((left + right) / 2, deep, under, "axis", "middle"))
    body.append(sideways(11, (top + bottom) / 2, axis))
    return svg(deep + 8, f"{title}: {'; '.join(said)}", body)


def _tip(name: str, row: dict[str, Any]) -> str:
    spread = f" ({number(row['low'])} to {number(row['high'])})" if row["n"] > 1 else ""
    return f"{_NAMES[name]}, {row['size']:,} annotated: {number(row['mean'])}{spread}"
