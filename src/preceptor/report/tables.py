"""The study's tables for people: cells for the page and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.study.plan import Plan
from preceptor.study.results import OVERALL, Results
from preceptor.study.rows import records
from preceptor.study.settings import PAPER_ALPHA

SHORT = {
    "baseline1_paper": f"Baseline 1, α {PAPER_ALPHA:g}",
    "baseline1": "Baseline 1, best α",
    "baseline2": "Baseline 2",
    "student": "Student",
    "shuffled": "Shuffled maps",
    "centre": "Centred map",
    "distilled": "Soft labels",
    "mixed": "Mixed, no Teacher",
    "ceiling": "Ceiling",
}
"""Names that fit an axis, by the key of a `results.Row`, in the order of the tables."""


def short(key: str) -> str:
    """The name of a table's line that fits an axis.

    Example:
        >>> short("student"), short("variant turns")
        ('Student', 'Variant turns')
    """
    return SHORT.get(key) or key[:1].upper() + key[1:]


def colour(key: str) -> str:
    """The class of a line's colour in the stylesheet: variants are Students."""
    return "student" if key.startswith("variant ") else key


def ordered(keys: Iterable[str]) -> list[str]:
    """Keys in the order of the tables: variants after the Student."""
    place = {key: position for position, key in enumerate(SHORT)}
    return sorted(keys, key=lambda key: place.get(key, place["student"] + 0.5))


DASH = "–"
_QUESTIONS = {
    "RQ2": "against the baselines",
    "RQ3": f"against Baseline 1 at α {PAPER_ALPHA:g}",
    "RQ1": "human-guided minus data-driven",
    "saliency": "marked by RISE minus marked by CAM",
    "control": "against the controls",
    "ceiling": "against the ceiling",
    "variant": "",
}


_BY_TEACHER = ("RQ1", "saliency")  # between probe Students, by what taught them


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Args:
        text: The value.
        note: What stands small beside it.
        best: Whether it is the highest of its column (of its row in a table by source).
    """

    text: str = DASH
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a table: its heading, its cells, and whether it is the Student's."""

    heading: str
    cells: list[Cell]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table for people.

    Args:
        caption: What it shows, in one sentence.
        corner: Heading of the first column.
        columns: Headings of the others.
        lines: The rows.
    """

    caption: str
    corner: str
    columns: list[str]
    lines: list[Line]


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """A number as people read it; a dash for none.

    Example:
        >>> number(0.12345), number(0.5, sign=True), number(float("nan"))
        ('0.123', '+0.500', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(low: Any, high: Any) -> str:
    """An interval of differences; a dash where there is none.

    Example:
        >>> interval(-0.01, 0.2)
        '−0.010 to +0.200'
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return f"{number(low, sign=True)} to {number(high, sign=True)}"


def mean_std_text(mean: Any, std: Any) -> str:
    """Mean ± std; the mean alone where one seed gives no spread."""
    if std is None or not math.isfinite(std):
        return number(mean)
    return f"{number(mean)} ± {number(std)}"


def set_order(plan: Plan, results: Results) -> list[str]:
    """The evaluation sets: primary, the other test sets, the validation sets."""
    manifest = plan.protocol.workspace.manifest
    return list(
        dict.fromkeys(
            [results.primary, *manifest.eval_splits("test"), *manifest.eval_splits("val")]
        )
    )


def sources_of(results: Results, evaluation: str) -> list[str]:
    """The sources that an evaluation set is divided into, sorted."""
    if results.table.empty:
        return []
    here = results.table[results.table["set"] == evaluation]
    return sorted(source for source in here["source"].unique() if source != ALL_SOURCES)


def set_table(plan: Plan, results: Results, evaluation: str) -> Table | None:
    """Mean ± std of the AUC on one whole set: a line an arm, a column a backbone and "overall"."""
    if results.table.empty:
        return None
    table = results.table
    table = table[(table["set"] == evaluation) & (table["source"] == ALL_SOURCES)]
    if table.empty:
        return None
    shown = set(table["backbone"])
    columns = [name for name in [*plan.protocol.study.students, OVERALL] if name in shown]
    seeds = len(plan.protocol.study.seed_list)
    best = {
        column: table[(table["backbone"] == column) & (table["key"] != "ceiling")]["mean"].max()
        for column in columns
    }
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
            if one["alpha"] and row.key not in ("baseline1_paper", "baseline2", "distilled"):
                notes.append(f"α {one['alpha']}")
            if one["n"] != seeds:
                notes.append(f"{one['n']} of {seeds} seeds")
            cells.append(
                Cell(
                    mean_std_text(one["mean"], one["std"]),
                    ", ".join(notes),
                    bool(row.key != "ceiling" and one["mean"] == best[column]),
                )
            )
        lines.append(Line(row.title, cells, row.key == "student"))
    images = int(table["images"].iloc[0])
    what = "AUC of " + (results.positive if results.positive is not None else "one class vs rest")
    caption = f"{evaluation}: {what}, mean ± standard deviation over seeds ({images:,} images)."
    return Table(caption, "", columns, lines)


def source_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """AUC by source: a line a source, a column an arm."""
    if results.table.empty:
        return None
    table = results.table
    table = table[(table["set"] == evaluation) & (table["backbone"] == backbone)]
    keys = [row.key for row in results.rows if (table["key"] == row.key).any()]
    lines = []
    for source in sources_of(results, evaluation):
        here = table[table["source"] == source]
        if not here["mean"].notna().any():
            continue  # a source of negatives alone has no AUC of its own
        best = here[here["key"] != "ceiling"]["mean"].max()
        mine = {one["key"]: one for one in records(here)}
        cells = [
            Cell(
                mean_std_text(mine[key]["mean"], mine[key]["std"]),
                best=bool(key != "ceiling" and mine[key]["mean"] == best),
            )
            if key in mine
            else Cell()
            for key in keys
        ]
        lines.append(Line(f"{source} ({int(here['images'].iloc[0]):,})", cells))
    if not lines:
        return None
    caption = f"{backbone} on {evaluation}: AUC by source (images of the source in brackets)."
    return Table(caption, "Source", [short(key) for key in keys], lines)


def comparison_tables(results: Results) -> list[Table]:
    """Paired comparisons, a table a question, the tested family first."""
    if results.comparisons.empty:
        return []
    names = {row.title: short(row.key) for row in results.rows}
    tables = []
    for question, title in _QUESTIONS.items():
        here = results.comparisons[results.comparisons["question"] == question]
        if here.empty:
            continue
        family = question == "RQ2"
        columns = ["Difference", "95 % interval, seeds", "p (sign-flip)"]
        columns += ["p (Holm)"] if family else []
        columns += ["95 %, seeds × images", "By seed"]
        lines = []
        for row in records(here):
            other = row["a"] if question == "variant" else row["b"]
            heading = f"{row['backbone']}: {names.get(other, other)}"
            if question in _BY_TEACHER:
                heading = f"{row['a']} − {row['b']}".replace("Students of ", "")
            cells = [
                Cell(number(row["mean"], sign=True), "" if row["n"] > 1 else "one seed"),
                Cell(interval(row["low"], row["high"])),
                Cell(number(row["p"]), f"floor {number(row['p_floor'])}"),
            ]
            cells += [Cell(number(row["p_holm"]))] if family else []
            cells += [
                Cell(interval(row["image_low"], row["image_high"])),
                Cell(", ".join(number(value, sign=True) for value in row["difference_by_seed"])),
            ]
            lines.append(Line(heading, cells))
        kind = "the family that is tested" if family else "descriptive"
        whose = "Student minus the other side"
        corner = "Backbone and other side"
        if question == "variant":
            whose, corner = "Students of a variant minus the study's own Students", "Variant"
        if question in _BY_TEACHER:
            whose, corner = (
                f"Probe Students ({here['backbone'].iloc[0]}) by their Teacher",
                "Teachers",
            )
        title = f", {title}" if question != "variant" else ""
        caption = f"{whose} on {results.primary}{title} ({kind})."
        tables.append(Table(caption, corner, columns, lines))
    return tables


def teacher_table(plan: Plan, results: Results) -> Table | None:
    """The candidates of stage 1 as selection saw them."""
    if results.teachers.empty:
        return None
    winner = plan.choices["teacher"].winner
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
                Cell("chosen" if row["name"] == winner else ""),
            ],
            row["name"] == winner,
        )
        for row in records(results.teachers)
    ]
    columns = ["Validation AUC of its Students", "Difference to the best", "Tied with the best"]
    columns += ["Map agreement with people (r)", "Choice"]
    caption = "Teachers in stage 1, judged by the worst validation set of their probe Students."
    return Table(caption, "Teacher", columns, lines)


def images_seen_table(plan: Plan, results: Results) -> Table | None:
    """Training images seen by each role, so that a longer training cannot pass for a better one."""
    runs = results.runs
    if runs.empty or not runs["finished"].any():
        return None
    runs = runs[runs["finished"]]
    study = plan.protocol.study
    columns = list(dict.fromkeys([*study.students, *study.teachers]))
    columns = [name for name in columns if (runs["backbone"] == name).any()]
    lines = []
    for role in ("baseline1", "baseline2", "teacher", "student", "shuffled", "centre", "ceiling"):
        mine = runs[runs["role"] == role]
        if mine.empty:
            continue
        cells = []
        for column in columns:
            seen = mine[mine["backbone"] == column]["images_seen"].dropna().astype(int)
            spread = sorted({int(seen.min()), int(seen.max())}) if len(seen) else []
            cells.append(Cell(" to ".join(f"{value:,}" for value in spread) or DASH))
        lines.append(Line(role.replace("baseline", "Baseline ").capitalize(), cells))
    return Table("Images seen in one training, by role.", "Role", columns, lines)
