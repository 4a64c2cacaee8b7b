"""Tables of the results of a study, for the page, Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from preceptor.evaluation.paired_tests import mean_std
from preceptor.evaluation.scores import ALL_SOURCES, class_auc
from preceptor.report.cells import SHORT, Cell, Line, Table, mean_std_text, short
from preceptor.results.comparisons import BY_TEACHER
from preceptor.results.domain import Results
from preceptor.results.rows import DETECTORS, OVERALL, Row, control_keys, records, select_arm
from preceptor.runtime.text import DASH, interval, number, p_value, percent
from preceptor.study.config import PAPER_ALPHA
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm

_QUESTIONS = {
    "RQ1": "human-guided minus data-driven",
    "saliency": "RISE maps minus CAMs",
    "RQ2": "against the baselines",
    "RQ3": f"against Baseline 1 at α {PAPER_ALPHA:g}",
    "overall": "the mean over backbones, seed by seed",
    "control": "against the controls",
    "detector": "against the mapper as a detector",
    "ceiling": "against the ceiling",
    "variant": "",
    "start": "all from the mapper's weights",
}


def sources_of(results: Results, evaluation: str) -> list[str]:
    """Sources of an evaluation set, sorted."""
    if results.table.empty:
        return []
    here = results.table[results.table["set"] == evaluation]
    return sorted(source for source in here["source"].unique() if source != ALL_SOURCES)


def set_table(plan: Plan, results: Results, evaluation: str) -> Table | None:
    """Mean ± std of the AUC on one whole set: rows are arms, columns backbones and "overall"."""
    if results.table.empty:
        return None
    table = results.table
    table = table[(table["set"] == evaluation) & (table["source"] == ALL_SOURCES)]
    if table.empty:
        return None
    shown, study = set(table["backbone"]), plan.protocol.study
    # A mapper that is used as a detector may have a backbone that no Student has.
    order = dict.fromkeys([*study.students, *study.teachers, OVERALL])
    columns = [name for name in order if name in shown]
    seeds = len(plan.seeds)
    compared = table[[results.may_be_best(key, evaluation) for key in table["key"]]]
    best = {column: compared[compared["backbone"] == column]["mean"].max() for column in columns}
    lines = []
    for row in results.rows:
        mine = {one["backbone"]: one for one in records(table[table["key"] == row.key])}
        if not mine:
            continue
        cells = []
        for column in columns:
            if column not in mine:
                cells.append(Cell())
                continue
            one = mine[column]
            notes = []
            if column in row.arms and (note := _setting_note(row, row.arms[column])):
                notes.append(note)
            if one["n"] != seeds:
                notes.append(f"{one['n']} of {seeds} seeds")
            if results.is_trained_on(row.key, evaluation):
                notes.append("trained on this set")
            cells.append(
                Cell(
                    mean_std_text(one["mean"], one["std"]),
                    ", ".join(notes),
                    results.may_be_best(row.key, evaluation) and one["mean"] == best[column],
                )
            )
        lines.append(Line(row.title, cells, row.key == "student"))
    images = int(table["images"].iloc[0])
    what = f"AUC of {results.positive}" if results.positive is not None else "one-vs-rest AUC"
    caption = f"{evaluation}: {what}, mean ± standard deviation over seeds ({images:,} images)."
    return Table(caption, "", columns, lines)


def _setting_note(row: Row, arm: Arm) -> str:
    """Selected setting of an arm; "" if nothing was selected."""
    if arm.alpha == 1 or row.key == "baseline1_paper":
        return arm.guidance
    return str(arm.setting)


def class_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """One-vs-rest AUC of each class, for more than two classes."""
    if results.positive is not None or results.figures.empty or len(results.classes) < 3:
        return None
    whole = results.figures
    whole = whole[(whole["set"] == evaluation) & (whole["source"] == ALL_SOURCES)]
    found: dict[str, pd.DataFrame] = {
        row.key: part
        for row in results.rows
        if backbone in row.arms and len(part := select_arm(whole, row.arms[backbone]))
    }
    if not found:
        return None
    lines = []
    for name in results.classes:
        spreads = {key: mean_std(part[class_auc(name)]) for key, part in found.items()}
        cells = [Cell(mean_std_text(*spread)) for spread in spreads.values()]
        lines.append(Line(name, cells))
    caption = f"{backbone} on {evaluation}: one-vs-rest AUC of each class, mean ± std."
    return Table(caption, "Class", [short(key) for key in found], lines)


def source_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """AUC by source: rows are sources, columns arms."""
    if results.table.empty:
        return None
    table = results.table
    table = table[(table["set"] == evaluation) & (table["backbone"] == backbone)]
    keys = [row.key for row in results.rows if (table["key"] == row.key).any()]
    lines = []
    for source in sources_of(results, evaluation):
        here = table[table["source"] == source]
        if not here["mean"].notna().any():
            continue  # a source with negatives only has no AUC
        best = here[[results.may_be_best(key, evaluation) for key in here["key"]]]["mean"].max()
        mine = {one["key"]: one for one in records(here)}
        cells = [
            Cell(
                mean_std_text(mine[key]["mean"], mine[key]["std"]),
                best=results.may_be_best(key, evaluation) and mine[key]["mean"] == best,
            )
            if key in mine
            else Cell()
            for key in keys
        ]
        lines.append(Line(f"{source} ({int(here['images'].iloc[0]):,})", cells))
    if not lines:
        return None
    caption = f"{backbone} on {evaluation}: AUC by source (images of the source in brackets)."
    return Table(caption, "Source", [short(key) for key in keys], lines, sortable=True)


def comparison_tables(results: Results, questions: Sequence[str]) -> list[tuple[str, Table]]:
    """Tables of paired comparisons by question."""
    if results.comparisons.empty:
        return []
    tables = []
    for question in questions:
        title = _QUESTIONS[question]
        here = results.comparisons[results.comparisons["question"] == question]
        if here.empty:
            continue
        family = question == "RQ2"
        columns = ["Difference", "95 % interval, seeds", "p (sign-flip)"]
        columns += ["p (Holm)"] if family else []
        columns += ["95 %, seeds × images", "Seeds for ±0.01", "By seed"]
        lines = []
        for row in records(here):
            if question not in BY_TEACHER:
                key = row["key_a"] if question == "variant" else row["key_b"]
                heading = f"{row['backbone']}: {short(key)}"
            else:
                heading = f"{row['teacher_a']} − {row['teacher_b']}"
            cells = [
                Cell(number(row["mean"], sign=True), _seeds_note(row)),
                Cell(interval(row["low"], row["high"])),
                Cell(
                    p_value(row["p"]), "" if row["stopped"] else f"floor {p_value(row['p_floor'])}"
                ),
            ]
            cells += [Cell(p_value(row["p_holm"]))] if family else []
            cells += [
                Cell(interval(row["image_low"], row["image_high"])),
                seeds_cell(row["seeds_needed"], row["seeds_cautious"]),
                Cell(", ".join(number(value, sign=True) for value in row["difference_by_seed"])),
            ]
            lines.append(Line(heading, cells))
        kind = "tested family" if family else "descriptive"
        whose = "Student minus the model of the row"
        corner = "Backbone and model"
        if question == "variant":
            whose, corner = "Students of a variant minus the study's own Students", "Variant"
        if question in BY_TEACHER:
            whose, corner = (
                f"Probe Students ({here['backbone'].iloc[0]}) by their Teacher",
                "Teachers",
            )
        title = f", {title}" if question != "variant" else ""
        caption = f"{whose} on {results.primary}{title} ({kind})."
        tables.append((question, Table(caption, corner, columns, lines)))
    return tables


def _seeds_note(row: dict[str, Any]) -> str:
    """Note on a comparison of few seeds."""
    if row["stopped"]:
        return "stopped early by validation; no interval"
    return "" if row["n"] > 1 else "one seed"


def seeds_cell(expected: float, cautious: float) -> Cell:
    """Number of seeds for an interval of ±0.01."""
    if not math.isfinite(expected):
        return Cell()
    return Cell(f"{expected:,.0f}", f"up to {cautious:,.0f}" if cautious > expected else "")


def share_table(results: Results) -> Table | None:
    """Share of the way from the better baseline to the ceiling."""
    if results.shares.empty:
        return None
    lines = []
    for row in records(results.shares):
        known = row["share"] is not None and math.isfinite(row["share"])
        told = percent(row["share"]) if known else DASH
        spread = f"{percent(row['low'])} to {percent(row['high'])}" if known else DASH
        cells = [Cell(short(row["baseline"])), Cell(told), Cell(spread), Cell(row["reason"])]
        heading = f"{row['backbone']}: {short(row['key'])}"
        lines.append(Line(heading, cells, row["key"] == "student"))
    columns = ["Better baseline", "Share of the way", "95 % interval", "Reason"]
    if all(cell.cells[-1].text == "" for cell in lines):
        columns.pop()
        lines = [Line(line.heading, line.cells[:-1], line.strong) for line in lines]
    caption = (
        "(Student − better baseline) ÷ (ceiling − better baseline), of AUC on "
        f"{results.primary}; given only if the interval of the denominator lies above 0."
    )
    return Table(caption, "Backbone", columns, lines)


def teacher_table(plan: Plan, results: Results) -> Table | None:
    """Candidates of stage 1 with the values used by the selection."""
    if results.teachers.empty:
        return None
    choice = plan.teacher_choice
    assert choice is not None
    winner = choice.winner
    lines = [
        Line(
            row["name"],
            [
                Cell(number(row["value"]), row["worst_set"]),
                Cell(
                    interval(row["low"], row["high"]) if row["low"] or row["high"] else "the best"
                ),
                Cell("yes" if row["tied"] else "no"),
                Cell(number(row["agreement"], 2)),
                Cell("selected" if row["name"] == winner else ""),
            ],
            row["name"] == winner,
        )
        for row in records(results.teachers)
    ]
    columns = ["Validation AUC of its Students", "Difference to the best", "Tied with the best"]
    columns += ["Agreement with human maps (r)", "Selection"]
    caption = "Teachers in stage 1: AUC of their probe Students on the worst validation set."
    return Table(caption, "Teacher", columns, lines)


def images_seen_table(plan: Plan, results: Results) -> Table | None:
    """Number of training images seen by each role, which shows differences in training length."""
    runs = results.runs
    if runs.empty or not runs["finished"].any():
        return None
    runs = runs[runs["finished"]]
    study = plan.protocol.study
    columns = list(dict.fromkeys([*study.students, *study.teachers]))
    columns = [name for name in columns if (runs["backbone"] == name).any()]
    lines = []
    controls = control_keys()
    known = ("baseline1", "baseline2", "teacher", "student", *controls, *DETECTORS, "ceiling")
    for role in known:
        mine = runs[runs["role"] == role]
        if mine.empty:
            continue
        cells = []
        for column in columns:
            seen = mine[mine["backbone"] == column]["images_seen"].dropna().astype(int)
            spread = sorted({int(seen.min()), int(seen.max())}) if len(seen) else []
            cells.append(Cell(" to ".join(f"{value:,}" for value in spread) or DASH))
        lines.append(Line(short(role) if role in SHORT else role.capitalize(), cells))
    return Table("Images seen in one training, by role.", "Role", columns, lines)
