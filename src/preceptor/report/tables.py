"""Tables of results for the page, Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from preceptor.metrics.paired_tests import mean_std
from preceptor.metrics.scores import ALL_SOURCES, class_auc
from preceptor.metrics.split_names import kind_of, split_kind
from preceptor.report.cells import (
    SHORT,
    Cell,
    Line,
    Table,
    common_seeds_text,
    mean_std_text,
    short,
)
from preceptor.report.rate_tables import fixed_rate_table, roc_rate_table
from preceptor.report.words import RUNGS
from preceptor.results.budgets import LINES
from preceptor.results.comparisons import BY_TEACHER
from preceptor.results.domain import Results
from preceptor.results.ladder import Ladder, Rung
from preceptor.results.published import Reproduction
from preceptor.results.rows import (
    DETECTORS,
    OVERALL,
    Row,
    control_keys,
    records,
    select_arm,
    set_order,
)
from preceptor.study.config import PAPER_ALPHA, StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm
from preceptor.utils.text import DASH, interval, number, p_value, percent

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
    for source in sorted(set(table["source"]) - {ALL_SOURCES}):
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
                Cell(number(row["mean"], sign=True), "" if row["n"] > 1 else "one seed"),
                Cell(interval(row["low"], row["high"])),
                Cell(p_value(row["p"]), f"floor {p_value(row['p_floor'])}"),
            ]
            cells += [Cell(p_value(row["p_holm"]))] if family else []
            cells += [
                Cell(interval(row["image_low"], row["image_high"])),
                _seeds_cell(row["seeds_needed"], row["seeds_cautious"]),
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


def _seeds_cell(expected: float, cautious: float) -> Cell:
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


def rung_table(found: Sequence[Ladder]) -> Table | None:
    """Table of ladders on one evaluation set: a row per rung, with its gain over the one below."""
    if not found:
        return None
    several = len(found) > 1
    lines = [
        Line(_heading(ladder, rung, several), _cells(rung), rung.name == "teacher")
        for ladder in found
        for rung in ladder.rungs
    ]
    columns = [
        "AUC",
        "95 % interval of the AUC",
        "Gain over the previous row",
        "95 % interval of the gain",
        "p",
    ]
    caption = (
        f"{found[0].set}: AUC by the maps that guide, mean ± standard deviation over seeds; gains "
        "are paired by seed, p is not corrected."
    )
    return Table(caption, "Maps", columns, lines)


def _heading(ladder: Ladder, rung: Rung, several: bool) -> str:
    which = f": {short(rung.key)}" if rung.name == "any" else ""
    name = RUNGS[rung.name][0]
    if several:
        return f"{ladder.backbone}: {name if rung.name == 'teacher' else name.lower()}{which}"
    return f"{name}{which}"


def _cells(rung: Rung) -> list[Cell]:
    plain = rung.name == "none" and not rung.setting.guidance
    level = interval(rung.low, rung.high).replace("+", "")
    own = [
        Cell(mean_std_text(rung.mean, rung.std), "" if plain else str(rung.setting)),
        Cell(level),
    ]
    if rung.gain is None:
        return [*own, Cell(), Cell(), Cell()]
    gain = rung.gain.paired
    note = f"{gain.n} of {rung.n} seeds" if gain.n != rung.n else ""
    return [
        *own,
        Cell(number(gain.mean, sign=True), note),
        Cell(interval(gain.low, gain.high)),
        Cell(p_value(gain.p), f"floor {p_value(gain.p_floor)}"),
    ]


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


SetAndBackbone = tuple[str, str]


@dataclass(frozen=True)
class DomainTables:
    """Tables of the page, table.md, summary.md and the model card; empty ones are absent.

    Args:
        order: Evaluation sets, the primary one first.
        sets: Main table by evaluation set.
        sources: AUC by source, by evaluation set and backbone.
        fixed_rates: Error rates at the threshold fixed on validation, by test set and backbone.
        roc_rates: Error rates on the test ROC curve, by test set and backbone.
        budgets: Table of annotation budgets by backbone.
    """

    order: list[str]
    sets: dict[str, Table]
    sources: dict[SetAndBackbone, Table]
    fixed_rates: dict[SetAndBackbone, Table]
    roc_rates: dict[SetAndBackbone, Table]
    budgets: dict[str, Table]

    @property
    def tests(self) -> list[str]:
        """Test sets, the primary one first."""
        return [name for name in self.order if split_kind(name) == "test"]


def domain_tables(plan: Plan, results: Results) -> DomainTables:
    """Tables of a domain.

    Args:
        plan, results: Plan and results of the domain.
    """
    study, order = plan.protocol.study, set_order(plan)
    tests = [name for name in order if split_kind(name) == "test"]

    def each(
        sets: Iterable[str], make: Callable[[str, str], Table | None]
    ) -> dict[SetAndBackbone, Table]:
        pairs = product(sets, study.students)
        return {pair: table for pair in pairs if (table := make(*pair)) is not None}

    made = {name: set_table(plan, results, name) for name in order}
    budgets = {name: budget_table(study, results, name) for name in study.students}
    return DomainTables(
        order=order,
        sets={name: table for name, table in made.items() if table is not None},
        sources=each(order, lambda one, backbone: source_table(results, one, backbone)),
        fixed_rates=each(tests, lambda one, name: fixed_rate_table(study, results, one, name)),
        roc_rates=each(tests, lambda one, name: roc_rate_table(study, results, one, name)),
        budgets={name: table for name, table in budgets.items() if table is not None},
    )


def published_table(results: Results, found: Sequence[Reproduction]) -> Table:
    """Published results beside those of the study."""
    lines = [
        Line(
            f"{one.published.backbone}: {short(one.published.key)}",
            [
                Cell(mean_std_text(one.published.mean, one.published.std)),
                Cell(mean_std_text(one.mean, one.std), f"{one.n} seed{'s' if one.n != 1 else ''}"),
                Cell(number(one.difference, sign=True)),
                Cell(interval(one.low, one.high)),
            ],
            one.published.key == "student",
        )
        for one in found
    ]
    caption = (
        f"AUC on {results.primary}, mean ± standard deviation over trainings. The interval is a t "
        "interval over the seeds of this study; the published mean is treated as exact, because "
        "its number of trainings is not known. An interval with its error would be wider."
    )
    columns = ["Published", "This study", "This study − published", "95 % interval"]
    return Table(caption, "Row", columns, lines)


def annotations_table(plan: Plan) -> Table:
    """Numbers of annotated images that a study uses."""
    protocol = plan.protocol
    study, workspace = protocol.study, protocol.workspace
    manifest = workspace.manifest
    seed = study.seed_list[0] if study.annotated_per_seed else 0
    annotated, mapped = workspace.drawn(study.annotated, seed), manifest.map_mask
    share = annotated.sum() / max(int(manifest.train_mask.sum()), 1)
    remark = f"{100 * share:.0f} % of the training images"
    if study.draws:
        remark += "; each seed is a new draw, the first is counted"
    elif study.annotated_per_seed:
        remark += "; a new draw for each seed, the first is counted"
    validation = (kind_of(manifest.table["split"]) == "val") & mapped
    used = "used to break ties in selection, and therefore counted as annotations"
    rows = [
        ("Annotated images (A)", annotated.sum(), remark),
        (
            "… of these with a human map",
            (annotated & mapped).sum(),
            "in the others there was nothing to mark",
        ),
        (
            "All training images (T)",
            manifest.train_mask.sum(),
            "with the Teacher's maps; only labels are needed",
        ),
        (
            "Human maps of validation images",
            validation.sum(),
            used if study.selection == "guided" else "reported, not used for selection",
        ),
    ]
    if study.ceiling:
        remark = "all that are available"
        if not manifest.annotated_mask[manifest.train_mask].all():
            remark += (
                "; not all training images are annotated, so that more annotations may gain more "
                "than the ceiling shows"
            )
        rows.append(("Human maps of the ceiling", (manifest.train_mask & mapped).sum(), remark))
    lines = [Line(name, [Cell(f"{count:,}"), Cell(remark)]) for name, count, remark in rows]
    return Table("Annotations used by this study.", "Kind", ["Images", "Remark"], lines)
