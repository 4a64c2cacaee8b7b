"""Figures of the results of a domain: seeds, selection of α, ROC curves, differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.evaluation.roc import roc_curve
from preceptor.evaluation.scores import ALL_SOURCES, stack
from preceptor.report.axis import Axis
from preceptor.report.cells import color, short
from preceptor.report.svg import (
    LEFT,
    NAME,
    WIDTH,
    Element,
    Figure,
    digits,
    dot,
    label,
    line,
    names,
    path,
    ring,
    svg,
    ticks,
)
from preceptor.report.unit_axes import UnitAxes
from preceptor.results.domain import Results
from preceptor.results.rows import OVERALL, records, select_arm
from preceptor.runtime.text import number
from preceptor.study.config import Setting
from preceptor.study.plan import Plan
from preceptor.study.protocol import teachers_of
from preceptor.study.steps import Arm

ROC_KEYS = ("baseline1", "baseline2", "student", "ceiling")
_ROLES = {"baseline1": "Baseline 1", "student": "Student", "ceiling": "Ceiling"}
_FPR = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Difference:
    """Mark in a figure of differences.

    Args:
        name: Name in the tool tip.
        mean, low, high: Mean difference and its 95 % interval; NaN for one seed.
        key: Color key.
    """

    name: str
    mean: float
    low: float
    high: float
    key: str


def dot_plot(results: Results, backbone: str) -> Figure | None:
    """AUC on the primary set by arm: a dot for each seed, a bar for the mean."""
    if results.figures.empty:
        return None
    found: dict[str, pd.Series] = {}
    for row in results.rows:
        if backbone in row.arms:
            part = select_arm(results.figures, row.arms[backbone])
            part = part[(part["set"] == results.primary) & (part["source"] == ALL_SOURCES)]
            values = part.set_index("seed")["auc"].dropna().sort_index()
            if len(values):
                found[row.key] = values
    if not found:
        return None
    everything = pd.concat(found.values())
    left, right, top, step = LEFT, WIDTH - 14.0, 10.0, 28.0
    bottom = top + step * len(found)
    scale = Axis(float(everything.min()), float(everything.max()), left, right)
    body, title = scale.drawn(top, bottom, f"AUC on {results.primary}")
    for place, (key, values) in enumerate(found.items()):
        y = top + step * (place + 0.5)
        mean = float(values.mean())
        strong = "name strong" if key == "student" else "name"
        body += names(left - 10, y, short(key), strong)
        body.append(line(left, y, right, y, "rule"))
        body.append(line(scale.x(mean), y - 9, scale.x(mean), y + 9, "mean", color(key)))
        for seed, value in values.items():
            tip = f"{short(key)}, seed {seed}: AUC {number(value)}"
            body.append(dot(scale.x(value), y, 4.5, color(key), tip))
    body.append(title)
    means = ", ".join(f"{short(key)} {number(part.mean())}" for key, part in found.items())
    return svg(bottom + 42, f"{backbone}: AUC by seed. Means: {means}", body)


def alpha_curve(results: Results, backbone: str) -> Figure | None:
    """Validation AUC over α for Baseline 1, Student and ceiling; the selected α is ringed.

    With several ways of guiding, their α follow one another.
    """
    if results.alphas.empty:
        return None
    table = results.alphas
    drawn = table["role"].isin(list(_ROLES))
    table = table[drawn & (table["backbone"] == backbone) & table["value"].notna()]
    if table.empty:
        return None
    settings = sorted(
        {Setting(*values) for values in zip(table["alpha"], table["guidance"], strict=True)},
        key=lambda one: (one.guidance, one.alpha),
    )
    marks = ticks(float(table["value"].min()), float(table["value"].max()))
    left, right, top, bottom = 46.0, WIDTH - 14.0, 10.0, 210.0
    gap = (right - left) / len(settings)

    def at(setting: Setting, value: float) -> tuple[float, float]:
        share = (value - marks[0]) / (marks[-1] - marks[0])
        return left + gap * (settings.index(setting) + 0.5), bottom - share * (bottom - top)

    body: list[Element] = []
    for mark in marks:
        y = at(settings[0], mark)[1]
        body.append(line(left, y, right, y, "grid"))
        body.append(label(left - 7, y + 4, number(mark, digits(marks)), "tick", "end"))
    for setting in settings:
        x = at(setting, marks[0])[0]
        body.append(label(x, bottom + 20, f"{setting.alpha:g}", "tick", "middle"))
    ways = {name: list(part) for name, part in groupby(settings, lambda one: one.guidance)}
    for name, part in ways.items():
        if name:
            ends = [at(one, marks[0])[0] for one in (part[0], part[-1])]
            body.append(label(sum(ends) / 2, bottom + 36, name, "tick", "middle"))
    under = 17 if any(ways) else 0
    said = []
    for role, name in _ROLES.items():
        for way in ways:
            own = table[(table["role"] == role) & (table["guidance"] == way)].sort_values("alpha")
            if own.empty:
                continue
            mine = records(own)
            points = [at(Setting(row["alpha"], way), row["value"]) for row in mine]
            body.append(path(points, role))
            for (px, py), row in zip(points, mine, strict=True):
                setting = Setting(row["alpha"], way)
                tip = f"{name}, {setting}: AUC {number(row['value'])} on {row['worst_set']}"
                if row["chosen"]:
                    tip += ", chosen"
                    body.append(ring(px, py, 8, role))
                    said.append(f"{name} {setting} with AUC {number(row['value'])}")
                body.append(dot(px, py, 4, role, tip))
    body.append(
        label(
            (left + right) / 2, bottom + 39 + under, "α (small: strong guidance)", "axis", "middle"
        )
    )
    return svg(
        bottom + 47 + under, f"{backbone}: validation AUC over α. Selected: {'; '.join(said)}", body
    )


def mean_roc(plan: Plan, results: Results, arm: Arm) -> NDArray[np.float64] | None:
    """Mean ROC curve over seeds at 201 false positive rates (vertical averaging)."""
    frames = results.tests_of(arm)
    if results.positive is None or not frames:
        return None
    curves = []
    for seed in sorted(frames):
        found = stack([frames[seed]], results.primary, results.classes, results.positive)
        labels, scores, _ = found
        if labels.all() or not labels.any():
            return None
        curve = roc_curve(labels, scores[0])
        curves.append(np.interp(_FPR, curve.fpr, curve.tpr))
    mean: NDArray[np.float64] = np.mean(curves, axis=0)
    return mean


def roc_plot(plan: Plan, results: Results, backbone: str) -> Figure | None:
    """Mean ROC curves of the baselines, the Student and the ceiling on the primary set."""
    curves = {}
    for row in results.rows:
        if row.key in ROC_KEYS and backbone in row.arms:
            curve = mean_roc(plan, results, row.arms[backbone])
            if curve is not None:
                curves[row.key] = curve
    if not curves:
        return None
    axes = UnitAxes(46.0, 310.0)
    body = [*axes.grid(), axes.diagonal()]
    for key in sorted(curves, key=lambda key: key == "student"):  # the Student on top
        points = [axes.at(0, 0), *(axes.at(f, t) for f, t in zip(_FPR, curves[key], strict=True))]
        body.append(path(points, color(key)))
    body += axes.titles("false positive rate", "true positive rate")
    at_tenth = ", ".join(f"{short(key)} {number(c[20], 2)}" for key, c in curves.items())
    title = f"{backbone}: ROC on {results.primary}. True positive rate at 10 % false: {at_tenth}"
    return svg(axes.height, title, body)


def differences(
    rows: Sequence[tuple[str, Sequence[Difference]]], title: str, axis: str = "AUC difference"
) -> Figure | None:
    """Differences with 95 % intervals, one row per name with one or several marks.

    Args:
        rows: Name of each row, and its marks.
        title: Text alternative of the figure; the marks are appended.
        axis: Label of the axis.
    """
    rows = [(name, [one for one in marks if math.isfinite(one.mean)]) for name, marks in rows]
    rows = [(name, marks) for name, marks in rows if marks]
    if not rows:
        return None
    bounds = [
        value
        for _, marks in rows
        for one in marks
        for value in (one.mean, one.low, one.high)
        if math.isfinite(value)
    ]
    left, top = LEFT, 10.0
    scale = Axis(min(bounds), max(bounds), left, WIDTH - 18.0, signed=True)
    heights = [
        14.0 * (len(marks) - 1) + (28.0 if len(name) <= NAME else 34.0) for name, marks in rows
    ]
    bottom = top + sum(heights)
    body, axis_title = scale.drawn(top, bottom, axis)
    said, start = [], top
    for (name, marks), height in zip(rows, heights, strict=True):
        middle = start + height / 2
        body += names(left - 10, middle, name)
        for place, one in enumerate(marks):
            y = middle + 14.0 * (place - (len(marks) - 1) / 2)
            tip = f"{one.name} {number(one.mean, sign=True)}"
            said.append(tip)
            if math.isfinite(one.low) and math.isfinite(one.high):
                body.append(line(scale.x(one.low), y, scale.x(one.high), y, "mean", color(one.key)))
            body.append(dot(scale.x(one.mean), y, 4.5, color(one.key), tip))
        start += height
    body.append(axis_title)
    return svg(bottom + 42, f"{title}: {'; '.join(said)}", body)


def _mark(row: dict[str, Any], name: str, key: str) -> Difference:
    return Difference(name, row["mean"], row["low"], row["high"], key)


def forest_plot(results: Results, backbone: str) -> Figure | None:
    """Student minus each other side, one row per comparison; the backbone may be `OVERALL`."""
    if results.comparisons.empty:
        return None
    table = results.comparisons
    wanted = ["RQ2", "RQ3", "control", "detector", "ceiling"]
    asked = table["question"].isin(["overall"] if backbone == OVERALL else wanted)
    table = table[asked & (table["backbone"] == backbone)]
    rows = []
    for row in records(table):
        key = row["key_b"]
        name = f"− {short(key)}"
        rows.append((name, [_mark(row, name, key)]))
    return differences(rows, f"{backbone}: Student")


def backbone_plot(results: Results) -> Figure | None:
    """Figure on RQ2: Student minus each baseline, one row per backbone."""
    if results.comparisons.empty:
        return None
    table = results.comparisons[results.comparisons["question"] == "RQ2"]
    rows = []
    for backbone, part in table.groupby("backbone", sort=False):
        marks = [
            _mark(row, f"{backbone} − {short(row['key_b'])}", row["key_b"]) for row in records(part)
        ]
        rows.append((str(backbone), marks))
    return differences(rows, "Student minus baseline, by backbone")


def domain_plot(domains: pd.DataFrame) -> Figure | None:
    """Figure on RQ4: Student minus each baseline, one row per domain and backbone.

    Args:
        domains: Results by domain, see `StudyResults.domains`.
    """
    if domains.empty:
        return None
    several = domains["backbone"].nunique() > 1
    rows = []
    for (domain, backbone), part in domains.groupby(["domain", "backbone"], sort=False):
        name = f"{domain}, {backbone}" if several else str(domain)
        marks = [
            _mark(row, f"{name} − {short(row['key_b'])}", row["key_b"]) for row in records(part)
        ]
        rows.append((name, marks))
    return differences(rows, "Student minus baseline, by domain")


def teacher_plot(plan: Plan, results: Results, name: str) -> Figure | None:
    """Figure on RQ1: Students of human-guided minus those of data-driven Teachers, by backbone."""
    if results.comparisons.empty:
        return None
    table = results.comparisons[results.comparisons["question"] == "RQ1"]
    rows = []
    for teacher in teachers_of(plan.protocol.study):
        if teacher.kind != "human" or teacher.name != name:
            continue
        for row in records(table[table["teacher_a"] == str(teacher)]):
            text = f"α {teacher.alpha:g}, {teacher.method.upper()}"
            rows.append((text, [_mark(row, f"human-guided {text} − data-driven", "student")]))
    return differences(rows, f"Students of {name} Teachers, human-guided minus data-driven")
