"""Write what a study found: tables as CSV and Markdown, the summary, the page, the model card."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from preceptor.errors import PreceptorError
from preceptor.report import tables
from preceptor.report.blocks import slugs
from preceptor.report.card import markdown_table, model_card
from preceptor.report.cells import Table, ordered
from preceptor.report.chapters import chapter, domains_section
from preceptor.report.export import exported
from preceptor.report.findings import Findings, study_findings
from preceptor.report.page import FILES, render_page
from preceptor.report.panel_files import PanelFile, write_panels
from preceptor.report.panels import COUNT, Panels, make_panels
from preceptor.report.rate_tables import fixed_rate_table
from preceptor.report.study_tables import budget_table, domain_table
from preceptor.report.verdict import Verdict, study_name
from preceptor.results.best import Best, write_best
from preceptor.results.domain import Results
from preceptor.results.rows import OVERALL
from preceptor.results.study import StudyResults, gather_study
from preceptor.runtime.result_folder import write_atomically
from preceptor.runtime.strict_json import strict_json
from preceptor.study.plan import Plan
from preceptor.study.steps import Failure
from preceptor.study.study_plan import StudyPlan

_WHOLE = ["images_seen", "best_epoch", "images", "positives", "n", "size", "seeds_needed"]
_WHOLE += ["seeds_cautious"]

# Of files that have no row yet, so that whatever reads them finds its columns.
_RUN = "role backbone alpha teacher seed"
_HEADS = {
    "results.csv": f"{_RUN} set source images positives auc eer accuracy average_precision brier "
    "run",
    "rates.csv": f"{_RUN} set kind measure at source value note run",
    "runs.csv": f"{_RUN} run finished seconds images_seen best_epoch",
    "table.csv": "key title backbone alpha set source mean std n accuracy eer average_precision "
    "brier images",
    "comparisons.csv": "question backbone a b key_a key_b alpha_a alpha_b n mean std low high p "
    "p_floor p_holm image_low image_high seeds_needed seeds_cautious difference_by_seed",
    "domains.csv": "domain backbone b n mean std low high p p_floor p_holm image_low image_high "
    "seeds_needed seeds_cautious difference_by_seed primary images student student_std baseline "
    "baseline_std",
    "budget.csv": "backbone line size minutes mean std low high n by_seed seeds",
}


@dataclass(frozen=True)
class WrittenReport:
    """What stands in a study folder once its report has been written.

    Args:
        folder: The study folder, with report.html.
        files: Names of the files and folders beside the page, of those in `page.FILES`.
        panels: The panels that were written as files.
    """

    folder: Path
    files: list[str]
    panels: list[PanelFile]


def write_results(
    study: StudyPlan, out: Path, failed: dict[str, Failure] | None = None
) -> WrittenReport:
    """Gather what has finished and write it into the study folder.

    Two equal studies give byte-identical tables, whatever order their runs finished in; times are
    in runs.csv and on the page alone.

    Args:
        study: Its choices say which runs are shown.
        out: The study folder.
        failed: Steps without a result, by title; None = those in the folder's summary.json that
            are still missing.

    Returns:
        The files of the report, for whoever hands them on.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = gather_study(study)
    findings = study_findings(study, found)
    if failed is None:
        failed = _failed_before(study, out / "summary.json")
    for name, frame in study_frames(study, found).items():
        write_atomically(out / name, csv_text(frame))
    shown = {name: _tables(plan, found.by_domain[name]) for name, plan in study.plans.items()}
    write_atomically(out / "table.md", _markdown(study, found, shown))
    lead = {name: several[:1] for name, several in shown.items()}
    write_atomically(out / "summary.md", _markdown(study, found, lead, findings.verdict))
    text = strict_json(
        _summary(study, found, findings)
        | {"failed": {title: asdict(one) for title, one in failed.items()}}
    )
    write_atomically(out / "summary.json", text + "\n")

    domains = domains_section(found, findings) if study.has_domains else None
    keys = dict(zip(study.plans, slugs(study.plans), strict=True))
    chapters, panels = [], dict[str, Panels | None]()
    for name, plan in study.plans.items():
        results, words = found.by_domain[name], findings.by_domain[name]
        if results.best is not None:
            _write_best(plan, results, words.verdict, results.best, out / "best" / keys[name])
        panels[name], note = _panels(plan, results, COUNT // len(study.plans))
        chapters.append(chapter(plan, results, words, panels[name], note, keys[name]))
    panel_files = write_panels(panels, out)
    sections = [section for one in chapters for section in one.sections]
    exports = list(exported([domains, *sections] if domains else sections))
    for folder in ("tables", "figures"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir()
    for path, content in exports:
        (out / path).write_text(content, encoding="utf-8")
    there = [name for name in FILES if (out / name).exists()]
    page = render_page(
        study, found, findings, domains, chapters, exports=exports, failed=failed, files=there
    )  # fmt: skip
    write_atomically(out / "report.html", page)
    return WrittenReport(out, there, panel_files)


def _summary(study: StudyPlan, found: StudyResults, findings: Findings) -> dict[str, Any]:
    """What was found, for programs: the verdict, and by domain answers and sentences."""
    top = findings.verdict
    parts: dict[str, dict[str, Any]] = {
        name: {
            "primary": one.primary,
            "answers": findings.by_domain[name].answers,
            "sentences": findings.by_domain[name].sentences,
            "missing": one.missing,
        }
        for name, one in found.by_domain.items()
    }
    said = {"verdict": {"kind": top.kind, "headline": top.headline, "text": top.text}}
    if not study.has_domains:
        return said | parts[""]
    return said | {"answers": {"RQ4": findings.across}, "domains": parts}


def _write_best(plan: Plan, results: Results, found: Verdict, best: Best, folder: Path) -> None:
    """The chosen Student of a domain with its card."""
    folder.parent.mkdir(exist_ok=True)
    with contextlib.suppress(PreceptorError):  # its files went away: the report says so
        write_best(plan, best, folder, model_card(plan, results, found, best))


def _panels(plan: Plan, results: Results, count: int) -> tuple[Panels | None, str]:
    """The panels of a domain, and the reason where there are none."""
    try:
        panels = make_panels(plan, results, count)
    except (PreceptorError, OSError) as error:  # a moved image must not cost the whole report
        return None, f"They could not be made: {error}"
    return panels, "No Student has been scored on the primary set yet."


def _failed_before(study: StudyPlan, file: Path) -> dict[str, Failure]:
    """The failures of the last run of the study, without the steps that have finished since."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))["failed"]
        before = TypeAdapter(dict[str, Failure]).validate_python(stored)
    except (OSError, ValueError, KeyError):
        return {}
    done = {step.title for plan in study for step in plan.steps.values() if study.is_finished(step)}
    return {title: failure for title, failure in before.items() if title not in done}


def _markdown(
    study: StudyPlan,
    found: StudyResults,
    shown: dict[str, list[Table]],
    top: Verdict | None = None,
) -> str:
    """Tables as Markdown, by domain, with the verdict below them where it is given."""
    parts = [f"# {study_name(study)}"]
    across = domain_table(found.domains)
    if across is not None:
        parts.append(markdown_table(across))
    for name, several in shown.items():
        if name:
            parts.append(f"## {name}")
        parts += [markdown_table(table) for table in several]
    if top is not None:
        parts.append(f"{top.headline}. {top.text}")
    return "\n\n".join(parts) + "\n"


def _tables(plan: Plan, results: Results) -> list[Table]:
    """The tables of one domain, that of the primary set first."""
    study = plan.protocol.study
    sets = tables.set_order(plan, results)
    found = [tables.set_table(plan, results, one) for one in sets]
    for backbone in study.students:
        found += [tables.source_table(results, one, backbone) for one in sets]
        found.append(budget_table(study, results, backbone))
        found.append(fixed_rate_table(study, results, results.primary, backbone))
    return [table for table in found if table is not None]


def study_frames(study: StudyPlan, found: StudyResults) -> dict[str, pd.DataFrame]:
    """The CSV files of all domains; where there are several, the first column says which."""
    if not study.has_domains:
        return frames(study.first, found.first)
    parts: dict[str, list[pd.DataFrame]] = {}
    for name, plan in study.plans.items():
        for file, frame in frames(plan, found.by_domain[name]).items():
            fresh = frame.copy()
            fresh.insert(0, "domain", name)
            parts.setdefault(file, []).append(fresh)
    joined = {
        file: pd.concat([one for one in several if len(one)] or several[:1], ignore_index=True)
        for file, several in parts.items()
    }
    domains = _listed(found.domains)
    if domains.empty:
        domains = pd.DataFrame(columns=_HEADS["domains.csv"].split())
    return joined | {"domains.csv": domains[_HEADS["domains.csv"].split()]}


def _listed(frame: pd.DataFrame) -> pd.DataFrame:
    """Lists of numbers as text."""
    lists = [name for name in ("difference_by_seed", "by_seed", "seeds") if name in frame]
    return frame.assign(
        **{
            name: frame[name].map(lambda values: " ".join(f"{value:.6g}" for value in values))
            for name in lists
        }
    )


def frames(plan: Plan, results: Results) -> dict[str, pd.DataFrame]:
    """The CSV files by name, their rows in an order that depends on the study alone."""
    sets = {name: place for place, name in enumerate(tables.set_order(plan, results))}
    backbones = [*plan.protocol.study.students, OVERALL]
    keys = ordered(row.key for row in results.rows)

    def place(frame: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
        if frame.empty:
            return frame
        order = pd.DataFrame(
            {
                name: frame[name].map(rank) if rank is not None else frame[name]
                for name, rank in columns.items()
            }
        ).fillna(len(sets) + len(keys) + len(backbones))
        return frame.loc[order.sort_values(list(columns), kind="stable").index]

    run = _RUN.split()
    by_set: dict[str, Any] = {"set": sets, "source": None}
    comparisons = _listed(results.comparisons)
    if not comparisons.empty:
        comparisons = comparisons[_HEADS["comparisons.csv"].split()]
    figures = place(results.figures, by_set | dict.fromkeys(run))
    if not figures.empty:
        first = [*run, "set", "source"]
        figures = figures[[*first, *(name for name in figures if name not in first)]]
    table_order = by_set | {
        "key": {key: position for position, key in enumerate(keys)},
        "backbone": {name: position for position, name in enumerate(backbones)},
    }
    found = {
        "results.csv": figures,
        "rates.csv": _rates(results, place),
        "runs.csv": place(results.runs, dict.fromkeys(run)),
        "table.csv": place(results.table, table_order),
        "comparisons.csv": comparisons,
    }
    if plan.protocol.study.budgets:
        found["budget.csv"] = _listed(results.budget)
    return {
        name: pd.DataFrame(columns=_HEADS[name].split()) if frame.empty else frame
        for name, frame in found.items()
    }


def _rates(
    results: Results, place: Callable[[pd.DataFrame, dict[str, Any]], pd.DataFrame]
) -> pd.DataFrame:
    run = _RUN.split()
    if results.rates.empty:
        return results.rates
    rates = place(results.rates, {"set": None} | dict.fromkeys(run))
    return rates[[*run, "set", *(name for name in rates if name not in {*run, "set"})]]


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: six significant digits, whole numbers whole."""
    whole = {name: "Int64" for name in _WHOLE if name in frame}
    text: str = frame.astype(whole).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text
