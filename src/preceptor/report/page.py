"""The report as one HTML file: `chapters` says what stands in it, the templates how it looks."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.report import export, figure_style, palette
from preceptor.report.blocks import Chapter, Drawn, Section
from preceptor.report.cells import short
from preceptor.report.findings import Findings
from preceptor.report.svg import Figure
from preceptor.report.verdict import controls_sentence, names_of, study_name
from preceptor.results.domain import Results
from preceptor.results.rows import records
from preceptor.results.study import StudyResults
from preceptor.runtime.formatting import DASH, interval, number
from preceptor.study.plan import Plan
from preceptor.study.steps import Failure
from preceptor.study.study_plan import StudyPlan

FILES = {
    "table.csv": "the main table, every evaluation set and source",
    "table.md": "the same as Markdown",
    "summary.md": "the first table of every domain and what was found, as the terminal shows it",
    "results.csv": "figures of every run, set and source",
    "rates.csv": "error rates of every run and test set",
    "comparisons.csv": "paired comparisons with intervals and p-values",
    "domains.csv": "the Student against both baselines in every domain",
    "budget.csv": "what each number of annotated images reached",
    "runs.csv": "every training, with times",
    "tables/": "every table of this page as CSV and LaTeX",
    "figures/": "every figure of this page as SVG",
    "panels/": "every image of this page with its maps as PNG, and an index",
    "summary.json": "the sentences of this page, what is missing and what failed",
    "selection.json": "what was chosen on validation, and why",
    "study.yaml": "the resolved study file",
    "best/": "the chosen Student as a model folder with its card",
}


_WORDS = ("Remark", "Why there is none", "By seed")  # columns that hold words, or many numbers


@dataclass(frozen=True)
class Link:
    """A file that the page carries in itself."""

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
    exports: Sequence[tuple[str, str]],
    failed: dict[str, Failure],
    files: list[str],
) -> str:
    """The whole page as HTML.

    Args:
        study, found: The study and its numbers.
        findings: The same in words.
        domains: The section over all domains, where there are several.
        chapters: One a domain.
        exports: Path and content of the file of every figure and table, see `export.exported`.
        failed: Steps without a result, by title.
        files: Names of the files beside the page.
    """
    top = findings.verdict
    first = found.first
    said = [top.text]
    if not study.has_domains:
        said += findings.by_domain[""].sentences[:1] if top.kind != "open" else []
        said.append(controls_sentence(first))
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
        "failed": {
            title: one.reason
            for title, one in sorted(failed.items(), key=lambda entry: entry[1].blocked)
        },
        "missing": [
            f"{one.domain}: {text}" if one.domain else text
            for one in found.by_domain.values()
            for text in one.missing
        ],
        "progress": found.progress,
        "domains": domains,
        "chapters": chapters,
        "links": _links(exports),
        "files": [(name, text) for name, text in FILES.items() if name in files],
    }
    environment = Environment(
        loader=PackageLoader("preceptor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    environment.filters["figures"] = _figures
    environment.globals["words"] = _WORDS
    environment.globals["styles"] = _styles()
    return environment.get_template("report.html.j2").render(context)


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
        key = hardest["key_b"]
        spread = interval(hardest["low"], hardest["high"])
        found.append(
            {
                "backbone": backbone,
                "student": number(means["student"]),
                "baseline": number(means.get(key)),
                "name": short(key),
                "gain": number(hardest["mean"], sign=True),
                "interval": "one seed: no interval" if spread == DASH else spread,
            }
        )
    return found


def typeset(text: str) -> str:
    """Minus signs for hyphens before numbers; α, % and − stay with what they belong to.

    Example:
        >>> typeset("(-0.1, best α, 95 %)") == "(−0.1, best\u00a0α, 95\u00a0%)"
        True
    """
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    text = re.sub(r"(?<=\d) %", "\u00a0%", text).replace(" − ", "\u00a0− ")
    return text.replace("α ", "α\u00a0").replace("best α", "best\u00a0α")


def _links(exports: Sequence[tuple[str, str]]) -> dict[str, list[Link]]:
    """The downloads of every table and figure, by `tables/NAME` and `figures/NAME`."""
    kinds = {"csv": ("CSV", "text/csv"), "tex": ("LaTeX", "text/plain"),
             "svg": ("SVG", "image/svg+xml")}  # fmt: skip
    found: dict[str, list[Link]] = {}
    for path, content in exports:
        stem, _, ending = path.rpartition(".")
        name, kind = kinds[ending]
        data = base64.b64encode(content.encode()).decode("ascii")
        link = Link(name, path.rpartition("/")[2], f"data:{kind};base64,{data}")
        found.setdefault(stem, []).append(link)
    return found


def _styles() -> dict[str, Markup]:
    """The parts of the stylesheet that are made from the palette, by their name in it."""
    parts = {
        "light": figure_style.variables(palette.LIGHT),
        "dark": figure_style.variables(palette.DARK),
        "ramp": ", ".join(palette.magma(8)),
        "figures": figure_style.page_styles(),
    }
    return {name: Markup(text) for name, text in parts.items()}


def _figures(block: Drawn, section: Section) -> list[tuple[str, str, Figure]]:
    """File name, caption and drawing of each figure of a block."""
    names = export.drawing_names(section, block)
    return [
        (file, caption, drawing)
        for (file, _), (caption, drawing) in zip(names, block.drawings, strict=True)
    ]


def _facts(study: StudyPlan, found: StudyResults) -> list[list[str]]:
    """What stands under the title, line by line: a line a domain where there are several."""
    about = []
    for one in found.by_domain.values():
        of = f"{one.domain}: " if one.domain else ""
        positive = f", positive {one.positive}" if one.positive is not None else ""
        about.append(f"{of}primary set {one.primary}, classes {names_of(one.classes)}{positive}")
    done, total = found.progress
    seeds = len(study.config.seed_list)
    work = [f"{seeds} seed{'s' if seeds != 1 else ''}", f"{done} of {total} trainings finished"]
    return [*([fact] for fact in about), work] if study.has_domains else [about + work]
