"""Tables of a whole study: domains, annotation budget, computing times."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from preceptor.report.cells import Cell, Line, Table, common_seeds_text, mean_std_text, short
from preceptor.results.budgets import LINES
from preceptor.results.domain import Results
from preceptor.results.rows import records
from preceptor.runtime.text import interval, number, p_value
from preceptor.study.config import StudyConfig

_BASELINES = ("baseline1", "baseline2")


def domain_table(domains: pd.DataFrame) -> Table | None:
    """Table on RQ4: Student and both baselines, one row per domain (and backbone).

    Which baseline is the stronger one is open where one of them has no results yet.
    """
    if domains.empty:
        return None
    lines = []
    several = domains["backbone"].nunique() > 1
    for (domain, backbone), part in domains.groupby(["domain", "backbone"], sort=False):
        rows = {row["key_b"]: row for row in records(part)}
        hardest = min(rows.values(), key=lambda row: row["mean"])
        heading = f"{domain}: {backbone}" if several else str(domain)
        cells = [Cell(f"{hardest['primary']}", f"{hardest['images']:,} images")]
        for key in _BASELINES:
            row = rows.get(key)
            cells.append(
                Cell(mean_std_text(row["baseline"], row["baseline_std"])) if row else Cell()
            )
        cells.append(Cell(mean_std_text(hardest["student"], hardest["student_std"])))
        if len(rows) == len(_BASELINES):
            larger = max(row["p_holm"] for row in rows.values())
            own = (hardest[name] for name in ("mean", "student", "baseline", "n"))
            cells += [
                Cell(number(hardest["mean"], sign=True), common_seeds_text(*own)),
                Cell(interval(hardest["low"], hardest["high"])),
                Cell(interval(hardest["image_low"], hardest["image_high"])),
                Cell(p_value(larger), f"floor {p_value(hardest['p_floor'])}"),
            ]
        else:
            cells += [Cell()] * 4
        lines.append(Line(heading, cells))
    columns = [
        "Set",
        *map(short, _BASELINES),
        "Student",
        "Student − stronger baseline",
        "95 % interval, seeds",
        "95 %, seeds × images",
        "larger p (Holm, all domains)",
    ]
    return Table("AUC by domain, mean ± std over seeds.", "Domain", columns, lines)


def budget_table(study: StudyConfig, results: Results, backbone: str) -> Table | None:
    """Results by number of annotated images, with the gain of the step to the next number."""
    if results.budget.empty:
        return None
    curve = results.budget[results.budget["backbone"] == backbone]
    if curve.empty:
        return None
    timed = curve["minutes"].notna().all()
    shown = {line: name for line, name in LINES.items() if line in set(curve["line"])}
    lines = []
    for size in study.budgets:
        here = {row["line"]: row for row in records(curve[curve["size"] == size])}
        if not here:
            continue
        cells = [Cell(number(next(iter(here.values()))["minutes"], 1))] if timed else []
        cells += [_curve_cell(here.get(line)) for line in shown]
        step = _step(results, backbone, "student", size)
        cells.append(
            Cell(number(step["mean"], sign=True), interval(step["low"], step["high"]))
            if step
            else Cell()
        )
        lines.append(Line(f"{size:,}", cells))
    columns = ["Minutes"] if timed else []
    columns += [*shown.values(), "Student's gain by the next step"]
    caption = (
        f"{backbone}: AUC on {results.primary} by the number of annotated images, mean and 95 % "
        "interval over seeds; the images are a new draw for every seed."
    )
    return Table(caption, "Annotated", columns, lines)


def _curve_cell(point: dict[str, Any] | None) -> Cell:
    if point is None:
        return Cell()
    spread = f"{number(point['low'])} to {number(point['high'])}"
    return Cell(number(point["mean"]), spread if math.isfinite(point["low"]) else "")


def _step(results: Results, backbone: str, line: str, size: int) -> dict[str, Any] | None:
    steps = results.budget_steps
    if steps.empty:
        return None
    mine = steps[
        (steps["backbone"] == backbone) & (steps["line"] == line) & (steps["size"] == size)
    ]
    return records(mine)[0] if len(mine) else None
