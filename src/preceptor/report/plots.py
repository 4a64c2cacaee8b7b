"""Figures of the results of a domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.metrics.auc import roc_curve
from preceptor.metrics.paired_tests import RELEVANT_DIFFERENCE, unit_codes
from preceptor.metrics.reliability import (
    Bins,
    CalibrationError,
    calibration_error,
    reliability_bins,
)
from preceptor.metrics.scores import ALL_SOURCES, labels_of, probabilities, stack
from preceptor.report.blocks import Cell, Line, Table, short
from preceptor.report.figures import (
    Curve,
    Figure,
    Mark,
    curves_by_size,
    curves_figure,
    reliability_plot,
    rows_figure,
)
from preceptor.report.words import RUNGS, gained, other_smallest
from preceptor.results.budgets import enough
from preceptor.results.comparisons import set_aucs
from preceptor.results.domain import Results
from preceptor.results.ladder import Ladder
from preceptor.results.record import OVERALL, records
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.protocol import teachers_of
from preceptor.study.steps import Arm
from preceptor.utils.text import interval, number

_RUNG_KEYS = {"none": "baseline2", "any": "any", "teacher": "student", "human": "ceiling"}
_DRAWN = ("baseline1", "baseline2", "student", "ceiling")  # in ROC curves and reliability
_ROLES = {"baseline1": "Baseline 1", "ceiling": "Ceiling", "student": "Student"}
_FPR = np.linspace(0, 1, 201)


def dot_plot(plan: Plan, results: Results, backbone: str) -> Figure | None:
    """AUC on the primary set by arm: a dot for each seed, a bar for the mean."""
    rows = []
    for row in results.rows:
        if backbone in row.arms:
            aucs = set_aucs(results.figures, row.arms[backbone], results.primary)
            values = tuple(aucs.dropna().sort_index())
            if values:
                mean = float(np.mean(values))
                rows.append((short(row.key), [Mark("mean", row.key, mean, values=values)]))
    return rows_figure(rows, f"{backbone}: AUC by seed", f"AUC on {results.primary}")


def alpha_plot(plan: Plan, results: Results, backbone: str) -> Figure | None:
    """Validation AUC over α for Baseline 1, ceiling and Student; the selected α is ringed."""
    table = results.alphas
    if table.empty:
        return None
    known = table["value"].notna() & table["role"].isin([*_ROLES])
    table = table[known & (table["backbone"] == backbone)]
    if table.empty:
        return None
    settings = sorted(
        {Setting(*values) for values in zip(table["alpha"], table["guidance"], strict=True)},
        key=lambda one: (one.guidance, one.alpha),
    )
    ways = dict.fromkeys(one.guidance for one in settings)
    curves, said = [], []
    for role, name in _ROLES.items():
        for way in ways:
            own = table[(table["role"] == role) & (table["guidance"] == way)].sort_values("alpha")
            places = [settings.index(Setting(alpha, way)) for alpha in own["alpha"]]
            chosen = np.flatnonzero(own["chosen"].to_numpy(bool)).tolist()
            curves.append(Curve(name, role, places, own["value"], dots=True, ringed=tuple(chosen)))
            for row in records(own.iloc[chosen]):
                said.append(f"{name} {Setting(row['alpha'], way)} with AUC {number(row['value'])}")
    ticks = {}
    for place, one in enumerate(settings):
        first = one.guidance and settings[place - 1].guidance != one.guidance
        ticks[float(place)] = f"{one.alpha:g}" + (
            f"\n{one.guidance}" if first or place == 0 else ""
        )
    title = f"{backbone}: validation AUC over α. Selected: {'; '.join(said)}"
    return curves_figure(
        [one for one in curves if len(np.asarray(one.x))], title, "α (small: strong guidance)",
        "validation AUC", ticks=ticks,
    )  # fmt: skip


def roc_plot(plan: Plan, results: Results, backbone: str) -> Figure | None:
    """Mean ROC curves of the baselines, the ceiling and the Student on the primary set."""
    found = {
        row.key: curve
        for row in results.rows
        if row.key in _DRAWN and backbone in row.arms
        if (curve := _mean_roc(results, row.arms[backbone])) is not None
    }
    if not found:
        return None
    curves = [
        Curve(short(key), key, [0, *_FPR], [0, *found[key]])
        for key in sorted(found, key=lambda key: key == "student")
    ]
    at_tenth = ", ".join(f"{short(key)} {number(c[20], 2)}" for key, c in found.items())
    title = f"{backbone}: ROC on {results.primary}. True positive rate at 10 % false: {at_tenth}"
    labels = ("false positive rate", "true positive rate")
    return curves_figure(curves, title, *labels, unit=(True, True), diagonal=True, height=300)


def _mean_roc(results: Results, arm: Arm) -> NDArray[np.float64] | None:
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


def _mark(row: Mapping[str, Any], name: str, key: str) -> Mark:
    return Mark(name, key, row["mean"], row["low"], row["high"])


def _differences(rows: Sequence[tuple[str, Sequence[Mark]]], title: str) -> Figure | None:
    return rows_figure(rows, title, "AUC difference", signed=True)


def forest_plot(plan: Plan, results: Results, backbone: str) -> Figure | None:
    """Student minus each other side, one row per comparison; the backbone may be `OVERALL`."""
    table = results.comparisons
    wanted = ["RQ2", "RQ3", "control", "detector", "ceiling"]
    asked = table["question"].isin(["overall"] if backbone == OVERALL else wanted)
    rows = [
        (f"− {short(row['key_b'])}", [_mark(row, "difference", row["key_b"])])
        for row in records(table[asked & (table["backbone"] == backbone)])
    ]
    return _differences(rows, f"{backbone}: Student")


def backbone_plot(results: Results) -> Figure | None:
    """Figure on RQ2: Student minus each baseline, one row per backbone."""
    table = results.comparisons
    table = table[table["question"] == "RQ2"].assign(name=table["backbone"])
    return _by_name(table, "Student minus baseline, by backbone")


def domain_plot(domains: pd.DataFrame) -> Figure | None:
    """Figure on RQ4: Student minus each baseline, one row per domain and backbone."""
    if domains.empty:
        return None
    names = domains["domain"].astype(str)
    if domains["backbone"].nunique() > 1:
        names += ", " + domains["backbone"].astype(str)
    return _by_name(domains.assign(name=names), "Student minus baseline, by domain")


def _by_name(table: pd.DataFrame, title: str) -> Figure | None:
    rows = [
        (str(name), [_mark(row, f"− {short(row['key_b'])}", row["key_b"]) for row in records(part)])
        for name, part in table.groupby("name", sort=False, observed=True)
    ]
    return _differences(rows, title)


def teacher_plot(plan: Plan, results: Results, name: str) -> Figure | None:
    """Figure on RQ1: Students of human-guided minus those of data-driven Teachers, by backbone."""
    table = results.comparisons
    rows = [
        (f"α {teacher.alpha:g}, {teacher.method.upper()}", [_mark(row, "difference", "student")])
        for teacher in teachers_of(plan.protocol.study)
        if teacher.kind == "human" and teacher.name == name
        for row in records(table[table["question"] == "RQ1"])
        if row["teacher_a"] == str(teacher)
    ]
    return _differences(rows, f"Students of {name} Teachers, human-guided minus data-driven")


def ladder_plot(rows: Sequence[tuple[str, Ladder]], axis: str) -> Figure | None:
    """Ladders with 95 % intervals, one row per name, and the gain of the Teacher's maps."""
    drawn, notes = [], []
    for name, ladder in rows:
        marks = [
            Mark(RUNGS[one.name][0], _RUNG_KEYS[one.name], one.mean, one.low, one.high)
            for one in ladder.rungs
        ]
        drawn.append((name, marks))
        place, other = ladder.place, other_smallest(ladder)
        note = f"place {gained(place)}" if place and math.isfinite(place.mean) else ""
        if note and other:
            note += f"; over {short(other.control)} {gained(other.paired)}"
        notes.append(note)
    return rows_figure(drawn, f"{axis} by the maps that guide", axis, joined=True, notes=notes)


def budget_plot(study: StudyConfig, results: Results, backbone: str) -> Figure | None:
    """AUC of Baseline 1, a mapper and the Student on the primary set by annotated images.

    Bands are 95 % intervals of the mean over seeds. Rows that use labels or maps of all images are
    horizontal lines. The number from which more annotations are known to increase the Student's AUC
    by less than the relevant difference is marked.
    """
    curve, table, primary = results.budget, results.table, results.primary
    found = enough(curve, backbone, "student", RELEVANT_DIFFERENCE, study.budgets)
    curve = curve[(curve["backbone"] == backbone) & (curve["line"] != "teacher_maps")]
    whole = table[(table["set"] == primary) & (table["source"] == ALL_SOURCES)]
    means = dict(whole.loc[whole["backbone"] == backbone, ["key", "mean"]].to_numpy())
    across = ("baseline2", "ceiling", "mapper_all")
    levels = {short(key): (key, float(means[key])) for key in across if key in means}
    curves = {
        "baseline1": ("Baseline 1", "baseline1"),
        "mapper": ("Mapper, annotated", "mapper"),
        "student": ("Student", "student"),
    }
    title = f"{backbone}: AUC on {primary} over the number of annotated images"
    size = found.size if found is not None else None
    return curves_by_size(curve, curves, title, f"AUC on {primary}", levels, size)


def maps_plot(results: Results, backbone: str) -> Figure | None:
    """Correlation of the Teacher's maps with human maps of validation images."""
    curve = results.budget
    curve = curve[(curve["backbone"] == backbone) & (curve["line"] == "teacher_maps")]
    title = "The Teacher's maps over the number of annotated images"
    names = {"teacher_maps": ("Teacher's maps", "teacher")}
    return curves_by_size(curve, names, title, "r with human maps (validation)")


def reliability(plan: Plan, results: Results, backbone: str) -> tuple[Figure, Table] | None:
    """Reliability diagram on the primary set, and the table of calibration errors."""
    curves: dict[str, tuple[str, Bins]] = {}
    lines: list[Line] = []
    for row in results.rows:
        if row.key not in _DRAWN or backbone not in row.arms:
            continue
        frames = results.tests_of(row.arms[backbone])
        parts = [frames[seed][frames[seed]["split"] == results.primary] for seed in sorted(frames)]
        if not any(map(len, parts)):
            continue
        draws = plan.protocol.study.draws
        error, bins = reliability_of_seeds(parts, results.classes, results.positive, draws=draws)
        curves[row.key] = (short(row.key), bins)
        cells = [
            Cell(number(error.value), interval(error.low, error.high, sign=False)),
            Cell(number(error.expected)),
        ]
        lines.append(Line(short(row.key), cells, row.key == "student"))
    if not lines:
        return None
    up = "share of correct decisions"
    if results.positive is not None:
        up = f"share of {results.positive}"
    title = f"{backbone}: reliability on {results.primary}"
    caption = (
        f"{backbone}: expected calibration error (ECE) on {results.primary}, with its 95 % "
        "interval over images, and the mean ECE of a calibrated model on as many images."
    )
    table = Table(caption, "", ["ECE", "Calibrated model"], lines)
    return reliability_plot(curves, title, "mean score", up), table


def reliability_of_seeds(
    parts: Sequence[pd.DataFrame], classes: Sequence[str], positive: str | None, *, draws: bool
) -> tuple[CalibrationError, Bins]:
    """ECE and bins of the scores of all seeds; images are resampled with the scores of all
    seeds."""
    scored = [_scored(part, list(classes), positive) for part in parts]
    hits, values = (np.concatenate(side) for side in zip(*scored, strict=True))
    codes = [unit_codes(part["group"].to_numpy(object), len(part)) for part in parts]
    if draws:
        starts = np.cumsum([0, *(int(own.max(initial=-1)) + 1 for own in codes[:-1])])
        codes = [own + start for own, start in zip(codes, starts, strict=True)]
    found = calibration_error(hits, values, np.concatenate(codes))
    return found, reliability_bins(hits, values)


def _scored(
    part: pd.DataFrame, classes: list[str], positive: str | None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Hits and scores of one seed: of the positive class, or of the most probable one."""
    labels, chances = labels_of(part, classes), probabilities(part, classes)
    if positive is None:
        return chances.argmax(1) == labels, chances.max(1).clip(0, 1)
    place = classes.index(positive)
    return labels == place, chances[:, place].clip(0, 1)
