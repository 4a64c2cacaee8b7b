"""The report: what the page shows, in the order in which it shows it; the template lays it out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.report import figures, tables
from preceptor.report.panels import Panels
from preceptor.report.words import (
    budget,
    controls_sentence,
    methods,
    names_of,
    study_name,
    verdict,
)
from preceptor.study.plan import Plan
from preceptor.study.results import Results
from preceptor.study.rows import records

FILES = {
    "table.csv": "the main table, every evaluation set and source",
    "table.md": "the same as Markdown",
    "results.csv": "figures of every run, set and source",
    "comparisons.csv": "paired comparisons with intervals and p-values",
    "runs.csv": "every training, with times",
    "summary.json": "the sentences of this page, what is missing and what failed",
    "selection.json": "what was chosen on validation, and why",
    "study.yaml": "the resolved study file",
    "best/": "the chosen Student as a model folder",
}


def headlines(plan: Plan, results: Results) -> list[dict[str, str]]:
    """For each backbone: the Student, its better baseline, the difference and its interval."""
    if results.table.empty or results.comparisons.empty:
        return []
    whole = results.table[
        (results.table["set"] == results.primary) & (results.table["source"] == ALL_SOURCES)
    ]
    found = []
    for backbone in plan.protocol.study.students:
        compared = results.comparisons
        pairs = compared[(compared["backbone"] == backbone) & (compared["question"] == "RQ2")]
        means = whole[whole["backbone"] == backbone].set_index("key")["mean"]
        pairs = pairs.dropna(subset=["mean"]).sort_values("mean", kind="stable")
        if pairs.empty or "student" not in means:
            continue
        hardest = records(pairs)[0]
        key = next(row.key for row in results.rows if row.title == hardest["b"])
        spread = tables.interval(hardest["low"], hardest["high"])
        found.append(
            {
                "backbone": backbone,
                "student": tables.number(means["student"]),
                "baseline": tables.number(means.get(key)),
                "name": tables.short(key),
                "gain": tables.number(hardest["mean"], sign=True),
                "interval": "one seed: no interval" if spread == tables.DASH else spread,
            }
        )
    return found


def render_page(
    plan: Plan,
    results: Results,
    *,
    panels: Panels | None,
    panels_note: str,
    failed: dict[str, str],
    files: list[str],
) -> str:
    """The whole page as HTML.

    Args:
        plan: The study.
        results: What it found.
        panels: Images with maps, or None.
        panels_note: Why there are none.
        failed: Steps that could not be done, with the reason.
        files: Names of the files beside the page.
    """
    sets = tables.set_order(plan, results)
    backbones = list(plan.protocol.study.students)
    choice = plan.choices.get("teacher")
    per_source = [
        table
        for name in sets
        if name.startswith("test")
        for backbone in backbones
        if (table := tables.source_table(results, name, backbone)) is not None
    ]
    found = verdict(results)
    first = results.sentences[0] if results.sentences and found.kind != "open" else ""
    context: dict[str, Any] = {
        "name": study_name(plan),
        "results": results,
        "facts": _facts(plan, results),
        "verdict": found,
        "summary": " ".join(
            text for text in (found.text, first, controls_sentence(results)) if text
        ),
        "headlines": headlines(plan, results),
        # What failed by itself before what only waited for it.
        "failed": dict(sorted(failed.items(), key=lambda entry: entry[1].startswith("needs "))),
        "main": tables.set_table(plan, results, results.primary),
        "others": [table for name in sets[1:] if (table := tables.set_table(plan, results, name))],
        "per_source": per_source,
        "comparisons": tables.comparison_tables(results),
        "forest": _each(backbones, lambda name: figures.forest_plot(results, name)),
        "dots": _each(backbones, lambda name: figures.dot_plot(results, name)),
        "alphas": _each(backbones, lambda name: figures.alpha_curve(results, name)),
        "rocs": _each(backbones, lambda name: figures.roc_plot(plan, results, name)),
        "teachers": tables.teacher_table(plan, results),
        "teacher_reason": choice.reason if choice is not None else "",
        "panels": panels,
        "panels_note": panels_note,
        "methods": methods(plan, results),
        "images_seen": tables.images_seen_table(plan, results),
        "budget": budget(plan),
        "files": [(name, text) for name, text in FILES.items() if name in files],
    }
    environment = Environment(
        loader=PackageLoader("preceptor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = _typeset
    return environment.get_template("report.html.j2").render(context)


def _typeset(text: str) -> str:
    """Minus signs for hyphens before numbers, and an α that stays with its value.

    Example:
        >>> _typeset("(-0.1, best α)") == "(−0.1, best\u00a0α)"
        True
    """
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    return text.replace("α ", "α\u00a0").replace("best α", "best\u00a0α")


def _facts(plan: Plan, results: Results) -> list[str]:
    study = plan.protocol.study
    seeds = len(study.seed_list)
    facts = [f"primary set {results.primary}", f"classes {names_of(results.classes)}"]
    if results.positive is not None:
        facts.append(f"positive {results.positive}")
    done, total = results.progress
    facts.append(f"{seeds} seed{'s' if seeds != 1 else ''}")
    facts.append(f"{done} of {total} trainings finished")
    return facts


def _each(backbones: list[str], draw: Callable[[str], Markup | None]) -> list[tuple[str, Markup]]:
    """The figure of each backbone that has one."""
    return [(name, made) for name in backbones if (made := draw(name)) is not None]
