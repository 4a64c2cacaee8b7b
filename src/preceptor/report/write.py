"""Writing of results: tables as CSV, summary, page, figures and the selected model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from preceptor.errors import InputError, PreceptorError
from preceptor.models.build import WEIGHTS, check_model_files, load_model, save_model
from preceptor.models.guided_model import GuidedModel
from preceptor.report.blocks import Block, FigureBlock, Section, Text, slugs
from preceptor.report.methods import model_card, study_name
from preceptor.report.page import FILES, chapter, domains_section, render_page
from preceptor.report.panels import COUNT, make_panels
from preceptor.report.tables import domain_table, set_table
from preceptor.report.words import Findings, closing, study_findings
from preceptor.results.domain import Results, StudyResults, csv_files, gather_study
from preceptor.results.tables import CSV_FILES
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Failure
from preceptor.utils.files import copy_folder, remove_folder, replacing
from preceptor.utils.results import checksum, strict_json, write_atomically


@dataclass(frozen=True)
class WrittenReport:
    """Files of a written report."""

    folder: Path
    files: list[str]  # names of the written files and folders of `page.FILES`


@pd.option_context("mode.string_storage", "python")  # as `results_of`
def write_results(
    study: StudyPlan, out: Path, failed: dict[str, Failure] | None = None
) -> WrittenReport:
    """Gather the results of all finished steps and write them to the study folder."""
    out.mkdir(parents=True, exist_ok=True)
    found = gather_study(study)
    findings = study_findings(study, found)
    if failed is None:
        failed = _failed_before(study, out / "summary.json")
    tables = csv_files(found)
    for name, text in tables.items():
        write_atomically(out / name, text)
    for name in CSV_FILES.keys() - tables.keys():  # of an earlier config, such as with a budget
        (out / name).unlink(missing_ok=True)
    domains = domains_section(found, findings) if study.has_domains else None
    keys = dict(zip(study.plans, slugs(study.plans), strict=True))
    chapters = []
    best: dict[str, tuple[Path, dict[str, float], str]] = {}
    for name, plan in study.plans.items():
        results, words = found.by_domain[name], findings.by_domain[name]
        for model in [*results.best.values()][:1]:
            card = model_card(plan, results, words)
            best[keys[name]] = plan.protocol.run_folder(model.run), model.thresholds, card
        images = _panels(plan, results, COUNT // len(study.plans))
        chapters.append(chapter(plan, results, words, images, keys[name]))
    _write_best(best, out / "best")
    if not (out / "best").exists():  # the weights were removed
        findings = replace(findings, best="")
    write_atomically(out / "summary.md", _markdown(study, found, findings))
    summary = _summary(study, found, findings)
    summary |= {"failed": {identity: asdict(failure) for identity, failure in failed.items()}}
    write_atomically(out / "summary.json", strict_json(summary) + "\n")
    sections = [section for chapter in chapters for section in chapter.sections]
    _write_figures([domains, *sections] if domains else sections, out / "figures")
    there = [name for name in FILES if (out / name).exists()]
    page = render_page(study, found, findings, domains, chapters, failed=failed, files=there)
    write_atomically(out / "report.html", page)
    return WrittenReport(out, there)


def _write_figures(sections: Sequence[Section], folder: Path) -> None:
    """Replace the files of the page's figures."""
    with replacing(folder, flush=False) as partial:
        partial.mkdir()
        for section in sections:
            for block in section.blocks:
                if isinstance(block, FigureBlock):
                    for number, (_, figure) in enumerate(block.drawings, 1):
                        name = f"{section.key}-{block.name}-{number}.svg"
                        (partial / name).write_text(figure.svg, encoding="utf-8")


def _summary(study: StudyPlan, results: StudyResults, findings: Findings) -> dict[str, Any]:
    """Summary for programs: the verdict, and answers and sentences by domain."""
    parts: dict[str, dict[str, Any]] = {
        name: {
            "primary": domain.setup.primary,
            "answers": findings.by_domain[name].answers,
            "hints": findings.by_domain[name].hints,
            "best": {key: asdict(model) for key, model in domain.best.items()},
            "ladders": [asdict(ladder) for ladder in domain.primary_ladders],
            "missing": [*domain.missing, *domain.unscored],
        }
        for name, domain in results.by_domain.items()
    }
    said = {"verdict": asdict(findings.verdict), "closing": closing(findings, results)}
    if not study.has_domains:
        return said | parts[""]
    return said | {"answers": {"RQ4": findings.across}, "domains": parts}


def _panels(plan: Plan, results: Results, count: int) -> Block:
    """Panels of a domain, or the reason if there are none."""
    try:
        panels = make_panels(plan, results, count)
    except (PreceptorError, OSError) as error:  # a missing image must not prevent the whole report
        return Text(f"They could not be made: {error}", "none")
    return panels or Text("No Student has been scored on the primary set yet.", "none")


def _failed_before(study: StudyPlan, file: Path) -> dict[str, Failure]:
    """Failures of the last run of the study, without steps that have finished since."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))["failed"]
        before = TypeAdapter(dict[str, Failure]).validate_python(stored)
    except (OSError, ValueError, KeyError, TypeError):  # missing, or damaged
        return {}
    done = {step.id for plan in study for step in plan.steps.values() if study.is_finished(step)}
    return {identity: failure for identity, failure in before.items() if identity not in done}


def _write_best(chosen: Mapping[str, tuple[Path, dict[str, float], str]], folder: Path) -> None:
    """Write the selected models as model folders: run folder, thresholds and card by subfolder."""
    models: dict[str, GuidedModel | Path] = {}
    for name, (run, _, _) in chosen.items():
        try:
            models[name] = load_model(run / "model")
        except PreceptorError:
            if _has_weights_of(folder / name, run):  # the run folder has lost its own
                models[name] = folder / name
    if not models:
        remove_folder(folder)
        return
    with replacing(folder) as partial:
        partial.mkdir()
        for name, model in models.items():
            if isinstance(model, Path):
                copy_folder(model, partial / name)
            else:
                save_model(model, partial / name, chosen[name][1])
            (partial / name / "README.md").write_text(chosen[name][2], encoding="utf-8")


def _has_weights_of(folder: Path, run: Path) -> bool:
    """Whether a model folder has the weights that a run was finished with."""
    try:
        wanted = checksum(run, f"model/{WEIGHTS}")
        return bool(wanted) and check_model_files(folder)[WEIGHTS] == wanted
    except InputError:
        return False


def _markdown(study: StudyPlan, results: StudyResults, findings: Findings) -> str:
    """Verdict, model for use, hints, and the main table of each domain as Markdown."""
    verdict = findings.verdict
    parts = [f"# {study_name(study)}", f"**{verdict.headline}.** {verdict.sentences}"]
    parts += [f"`best/` has {findings.best}"] if findings.best else []
    if (across := domain_table(results.domains)) is not None:
        parts.append(across.markdown)
    for name, plan in study.plans.items():
        hints = [f"- **{title}.** {text}" for title, text in findings.by_domain[name].hints]
        parts += [f"## {name}"] if name else []
        parts += ["\n".join(hints)] if hints else []
        table = set_table(plan, results.by_domain[name], plan.protocol.primary)
        parts += [table.markdown] if table else []
    return "\n\n".join(parts) + "\n"
