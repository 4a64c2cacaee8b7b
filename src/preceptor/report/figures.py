"""Figures as inline SVG that takes its colours from the page, so it is legible in light and dark.

Every figure is drawn for a phone (360 units wide) and repeated per backbone, instead of one wide
figure whose letters shrink. Colours are CSS classes (`s-KEY`); lines differ in dash as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray

from preceptor.evaluation.metrics import roc_curve
from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.report.tables import colour, number, short
from preceptor.study.comparisons import test_scores
from preceptor.study.graph import Arm
from preceptor.study.plan import Plan
from preceptor.study.results import Results
from preceptor.study.rows import records, select_arm
from preceptor.study.selection import stack

WIDTH = 360
LEFT = 136.0  # of the plot where names stand beside it
ROC_KEYS = ("baseline1", "baseline2", "student", "ceiling")
_ROLES = {"baseline1": "Baseline 1", "student": "Student", "ceiling": "Ceiling"}
_FPR = np.linspace(0, 1, 201)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover [low, high] in about `count` steps.

    Example:
        >>> ticks(0.52, 0.83)
        [0.5, 0.6, 0.7, 0.8, 0.9]
    """
    span = max(high - low, 1e-3)
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)  # an axis has a length
    return [round(step * index, 10) for index in range(first, last + 1)]


def _svg(height: float, title: str, body: Sequence[str]) -> Markup:
    label = escape(title)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(body)}</svg>"
    )


def _text(x: float, y: float, text: str, classes: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{classes}">'
        f"{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def _dot(x: float, y: float, radius: float, classes: str, title: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{classes}">'
        f"<title>{escape(title)}</title></circle>"
    )


def _path(points: Sequence[tuple[float, float]], classes: str) -> str:
    return f'<path d="M{"L".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{classes}"/>'


def _digits(values: Sequence[float]) -> int:
    """Decimals that tell tick labels apart."""
    return next((d for d in (1, 2, 3) if all(abs(v - round(v, d)) < 1e-9 for v in values)), 4)


def dot_plot(results: Results, backbone: str) -> Markup | None:
    """A dot a seed and the mean as a bar, a line an arm, on the whole primary set."""
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
    marks = ticks(float(everything.min()), float(everything.max()))
    left, right, top, step = LEFT, WIDTH - 14.0, 10.0, 28.0
    bottom = top + step * len(found)
    scale = (right - left) / (marks[-1] - marks[0])

    def x(value: float) -> float:
        return left + (value - marks[0]) * scale

    body = []
    for mark in marks:
        body.append(_line(x(mark), top, x(mark), bottom, "grid"))
        body.append(_text(x(mark), bottom + 16, number(mark, _digits(marks)), "tick", "middle"))
    for place, (key, values) in enumerate(found.items()):
        y = top + step * (place + 0.5)
        mean = float(values.mean())
        strong = "strong" if key == "student" else ""
        body.append(_text(left - 10, y + 4, short(key), f"name {strong}", "end"))
        body.append(_line(left, y, right, y, "rule"))
        body.append(_line(x(mean), y - 9, x(mean), y + 9, f"mean s-{colour(key)}"))
        for seed, value in values.items():
            tip = f"{short(key)}, seed {seed}: AUC {number(value)}"
            body.append(_dot(x(value), y, 4.5, f"dot s-{colour(key)}", tip))
    body.append(
        _text((left + right) / 2, bottom + 34, f"AUC on {results.primary}", "axis", "middle")
    )
    means = ", ".join(f"{short(key)} {number(part.mean())}" for key, part in found.items())
    return _svg(bottom + 42, f"{backbone}: AUC by seed. Means: {means}", body)


def alpha_curve(results: Results, backbone: str) -> Markup | None:
    """Validation AUC over α for Baseline 1, Student and ceiling, the chosen α ringed."""
    if results.alphas.empty:
        return None
    table = results.alphas
    table = table[(table["backbone"] == backbone) & table["value"].notna()]
    if table.empty:
        return None
    alphas = sorted(table["alpha"].unique())
    marks = ticks(float(table["value"].min()), float(table["value"].max()))
    left, right, top, bottom = 46.0, WIDTH - 14.0, 10.0, 210.0
    gap = (right - left) / len(alphas)

    def at(alpha: float, value: float) -> tuple[float, float]:
        share = (value - marks[0]) / (marks[-1] - marks[0])
        return left + gap * (alphas.index(alpha) + 0.5), bottom - share * (bottom - top)

    body = []
    for mark in marks:
        y = at(alphas[0], mark)[1]
        body.append(_line(left, y, right, y, "grid"))
        body.append(_text(left - 7, y + 4, number(mark, _digits(marks)), "tick", "end"))
    for alpha in alphas:
        body.append(_text(at(alpha, marks[0])[0], bottom + 17, f"{alpha:g}", "tick", "middle"))
    said = []
    for role, name in _ROLES.items():
        mine = records(table[table["role"] == role].sort_values("alpha"))
        if not mine:
            continue
        points = [at(row["alpha"], row["value"]) for row in mine]
        body.append(_path(points, f"curve s-{role}"))
        for (px, py), row in zip(points, mine, strict=True):
            alpha = f"α {row['alpha']:g}"
            tip = f"{name}, {alpha}: AUC {number(row['value'])} on {row['worst_set']}"
            if row["chosen"]:
                tip += ", chosen"
                body.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="8" class="ring s-{role}"/>')
                said.append(f"{name} {alpha} with AUC {number(row['value'])}")
            body.append(_dot(px, py, 4, f"dot s-{role}", tip))
    body.append(
        _text((left + right) / 2, bottom + 36, "α (small: much guidance)", "axis", "middle")
    )
    return _svg(bottom + 44, f"{backbone}: validation AUC over α. Chosen: {'; '.join(said)}", body)


def mean_roc(plan: Plan, results: Results, arm: Arm) -> NDArray[np.float64] | None:
    """True positive rate at 201 false positive rates, averaged over seeds (vertical averaging)."""
    frames = test_scores(plan, arm)
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


def roc_plot(plan: Plan, results: Results, backbone: str) -> Markup | None:
    """Mean ROC curves of the baselines, the Student and the ceiling on the primary set."""
    curves = {}
    for row in results.rows:
        if row.key in ROC_KEYS and backbone in row.arms:
            curve = mean_roc(plan, results, row.arms[backbone])
            if curve is not None:
                curves[row.key] = curve
    if not curves:
        return None
    left, right, top, bottom = 46.0, WIDTH - 14.0, 10.0, 310.0

    def at(fpr: float, tpr: float) -> tuple[float, float]:
        return left + fpr * (right - left), bottom - tpr * (bottom - top)

    body = []
    for mark in (0, 0.25, 0.5, 0.75, 1):
        (x, y), label = at(mark, mark), f"{mark:g}"
        body += [_line(x, top, x, bottom, "grid"), _line(left, y, right, y, "grid")]
        body.append(_text(x, bottom + 16, label, "tick", "middle"))
        body.append(_text(left - 7, y + 4, label, "tick", "end"))
    body.append(_line(*at(0, 0), *at(1, 1), "chance"))
    for key in sorted(curves, key=lambda key: key == "student"):  # the Student on top
        points = [(left, bottom), *(at(f, t) for f, t in zip(_FPR, curves[key], strict=True))]
        body.append(_path(points, f"curve s-{colour(key)}"))
    body.append(_text((left + right) / 2, bottom + 35, "false positive rate", "axis", "middle"))
    body.append(
        f'<text class="axis" text-anchor="middle" transform="translate(12 {(top + bottom) / 2}) '
        'rotate(-90)">true positive rate</text>'
    )
    at_tenth = ", ".join(f"{short(key)} {number(c[20], 2)}" for key, c in curves.items())
    title = f"{backbone}: ROC on {results.primary}. True positive rate at 10 % false: {at_tenth}"
    return _svg(bottom + 43, title, body)


def forest_plot(results: Results, backbone: str) -> Markup | None:
    """Student minus each other side with its 95 % interval by seeds, a line a comparison."""
    if results.comparisons.empty:
        return None
    table = results.comparisons
    table = table[table["question"].isin(["RQ2", "RQ3", "control", "ceiling"])]
    table = table[(table["backbone"] == backbone) & table["mean"].notna()]
    if table.empty:
        return None
    keys = {row.title: row.key for row in results.rows}
    bounds = table[["mean", "low", "high"]].to_numpy(float)
    marks = ticks(min(0.0, float(np.nanmin(bounds))), max(0.0, float(np.nanmax(bounds))))
    left, right, top, step = LEFT, WIDTH - 18.0, 10.0, 28.0
    bottom = top + step * len(table)
    scale = (right - left) / (marks[-1] - marks[0])

    def x(value: float) -> float:
        return left + (value - marks[0]) * scale

    body = []
    for mark in marks:
        body.append(_line(x(mark), top, x(mark), bottom, "grid" if mark else "zero"))
        label = number(mark, _digits(marks), sign=mark != 0)
        body.append(_text(x(mark), bottom + 16, label, "tick", "middle"))
    said = []
    for place, row in enumerate(records(table)):
        y = top + step * (place + 0.5)
        key = keys.get(row["b"], "baseline1")
        mean, low, high = row["mean"], row["low"], row["high"]
        tip = f"− {short(key)} {number(mean, sign=True)}"
        said.append(tip)
        body.append(_text(left - 10, y + 4, f"− {short(key)}", "name", "end"))
        if math.isfinite(low) and math.isfinite(high):
            body.append(_line(x(low), y, x(high), y, f"mean s-{colour(key)}"))
        body.append(_dot(x(mean), y, 4.5, f"dot s-{colour(key)}", tip))
    body.append(_text((left + right) / 2, bottom + 34, "AUC difference", "axis", "middle"))
    return _svg(bottom + 42, f"{backbone}: Student {'; '.join(said)}", body)
