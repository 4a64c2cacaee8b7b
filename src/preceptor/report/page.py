"""Report as one HTML file: content from `chapters`, layout from the templates."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.report import export
from preceptor.report.blocks import Chapter, FigureBlock, Section
from preceptor.report.cells import common_seeds_text, short
from preceptor.report.findings import Findings
from preceptor.report.html import html_environment
from preceptor.report.sentences import names_of
from preceptor.report.svg import Figure
from preceptor.report.verdict import study_name
from preceptor.results.domain import Results, StudyResults
from preceptor.results.rows import records
from preceptor.runtime.text import DASH, interval, number
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Failure

FILES = {
    "table.csv": "the main table with all evaluation sets and sources",
    "table.md": "the main table as Markdown",
    "summary.md": "the first table of every domain and the verdict, as printed on the terminal",
    "results.csv": "metrics of every run, set and source",
    "rates.csv": "error rates of every run and test set",
    "comparisons.csv": "paired comparisons with intervals and p-values",
    "ladder.csv": "AUC without maps, with any map, the Teacher's and all human maps, with gains",
    "domains.csv": "the Student compared with both baselines in every domain",
    "budget.csv": "AUC by number of annotated images",
    "runs.csv": "every training, with times",
    "tables/": "every table of this page as CSV and LaTeX",
    "figures/": "every figure of this page as SVG",
    "panels/": "every image of this page with its maps as PNG, and an index",
    "summary.json": "the sentences of this page, missing and failed steps",
    "selection.json": "selections on validation, with reasons",
    "study.yaml": "the resolved study file",
    "best/": "the selected Student as a model folder with its card",
}


@dataclass(frozen=True)
class Link:
    """Link to a file that is embedded in the page."""

    text: str
    file: str
    data: str


def render_page(
    study: StudyPlan,
    found: StudyResults,
    findings: Findings,
    domains: Section | None,
    chapters: list[Chapter],
    *,
    exports: Sequence[export.ExportedFile],
    failed: dict[str, Failure],
    files: list[str],
) -> str:
    """Page as HTML.

    Args:
        study, found: The study and its numbers.
        findings: The same in words.
        domains: The section over all domains, where there are several.
        chapters: One a domain.
        exports: Files of all figures and tables, see `export.exported`.
        failed: Steps without a result, by step id.
        files: Names of the files beside the page.
    """
    top = findings.verdict
    said = [top.text]
    if not study.has_domains:
        said += findings.by_domain[""].sentences[:1] if top.kind != "open" else []
    said.append(top.place)
    context: dict[str, Any] = {
        "name": study_name(study),
        "facts": _facts(study, found),
        "verdict": top,
        "summary": " ".join(text for text in said if text),
        "headlines": [
            card | {"domain": name}
            for name, plan in study.plans.items()
            for card in headlines(plan, found.by_domain[name])
        ],
        # Steps that failed before the steps that were blocked by them.
        "failed": sorted(failed.values(), key=lambda one: one.blocked),
        "missing": found.missing,
        "unscored": found.unscored,
        "progress": found.progress,
        "domains": domains,
        "chapters": chapters,
        "links": _links(exports),
        "files": [(name, text) for name, text in FILES.items() if name in files],
    }
    environment = html_environment()
    environment.filters["figures"] = named_figures
    return environment.get_template("report.html.j2").render(context)


def headlines(plan: Plan, results: Results) -> list[dict[str, str]]:
    """Student, better baseline, difference and interval for each backbone.

    The difference is of the common seeds, which is noted if it is not that of the means.
    """
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
        key = hardest["key_b"]
        spread = interval(hardest["low"], hardest["high"])
        mean, n = hardest["mean"], int(hardest["n"])
        note = common_seeds_text(mean, means["student"], means.get(key, math.nan), n)
        spread = "one seed: no interval" if spread == DASH else spread
        found.append(
            {
                "backbone": backbone,
                "student": number(means["student"]),
                "baseline": number(means.get(key)),
                "name": short(key),
                "gain": number(mean, sign=True),
                "interval": f"{spread}; {note}" if note else spread,
            }
        )
    return found


def _links(exports: Sequence[export.ExportedFile]) -> dict[str, list[Link]]:
    """Download links of every table and figure, by `tables/NAME` and `figures/NAME`."""
    kinds = {
        "csv": ("CSV", "text/csv"),
        "tex": ("LaTeX", "text/plain"),
        "svg": ("SVG", "image/svg+xml"),
    }
    found: dict[str, list[Link]] = {}
    for file in exports:
        title, kind = kinds[file.suffix]
        data = base64.b64encode(file.content.encode()).decode("ascii")
        link = Link(title, file.name, f"data:{kind};base64,{data}")
        found.setdefault(f"{file.folder}/{file.stem}", []).append(link)
    return found


def named_figures(block: FigureBlock, section: Section) -> list[tuple[str, str, Figure]]:
    """File name, caption and drawing of each figure of a block."""
    names = export.drawing_names(section, block)
    return [
        (file, caption, drawing)
        for (file, _), (caption, drawing) in zip(names, block.drawings, strict=True)
    ]


def _facts(study: StudyPlan, found: StudyResults) -> list[list[str]]:
    """Facts below the title, one line per domain."""
    about = []
    for one in found.by_domain.values():
        of = f"{one.domain}: " if one.domain else ""
        positive = f", positive {one.positive}" if one.positive is not None else ""
        about.append(f"{of}primary set {one.primary}, classes {names_of(one.classes)}{positive}")
    done, total = found.progress
    counts = sorted({len(plan.seeds) for plan in study})
    seeds = f"{names_of(map(str, counts))} seed{'s' if counts != [1] else ''}"
    work = [seeds, f"{done} of {total} trainings finished"]
    return [*([fact] for fact in about), work] if study.has_domains else [about + work]
