"""The model card of the chosen Student, from the same numbers as the report."""

from __future__ import annotations

from preceptor.evaluation.terms import TERMS
from preceptor.report import rate_tables
from preceptor.report.cells import Table
from preceptor.report.domain_tables import DomainTables
from preceptor.report.methods import methods
from preceptor.report.verdict import Verdict, controls_sentence, names_of
from preceptor.results.best import Best
from preceptor.results.domain import Results
from preceptor.study.plan import Plan
from preceptor.training.record import RunRecord


def model_card(
    plan: Plan, results: Results, shared: DomainTables, found: Verdict, best: Best
) -> str:
    """Markdown: what the model is, what it can be trusted with, how it was made.

    Args:
        plan, results: Of the study, or of one of its domains.
        shared: Its tables.
        found: Whether its Students won.
        best: The chosen Student.
    """
    study = plan.protocol.study
    folder = plan.protocol.run_folder(best.run)
    record = RunRecord.read(folder)
    positive = results.positive
    scored = (
        f"The score is the probability of `{positive}`." if positive else "Scores of each class."
    )
    parts = [
        f"# {best.backbone}: {' or '.join(results.classes)}",
        f"A {best.backbone} network that tells {names_of(results.classes)} apart in images of "
        f"{record.input_size} × {record.input_size} pixels. {scored} It is a Student: it was "
        f"trained on all training images, guided at α {best.alpha:g} by the saliency maps of a "
        f"Teacher ({plan.winner()}). Of {len(study.seed_list)} seeds this is seed {best.seed}, the "
        f"median on validation (AUC {best.value:.3f} on the worst validation set).",
        "## What the study found",
        f"**{found.headline}.** {found.text} {controls_sentence(results)}".strip(),
    ]
    at = (results.primary, best.backbone)
    shown = [
        shared.sets.get(results.primary),
        shared.fixed_rates.get(at),
        shared.roc_rates.get(at),
        shared.sources.get(at),
    ]
    parts += [markdown_table(table) for table in shown if table is not None]
    if best.thresholds:
        terms = TERMS[study.terms]
        parts += [
            "## Thresholds",
            f"An image is called `{positive}` when its score is at least the threshold. Each was "
            "fixed on validation images and is in `model.json`; what cannot be fixed on so few "
            "images is not there.",
            "\n".join(
                [
                    "| rule | threshold |",
                    "| --- | --- |",
                    *(
                        f"| {rate_tables.rule_words(rule, terms)} (`{rule}`) | {value:.6f} |"
                        for rule, value in best.thresholds.items()
                    ),
                ]
            ),
        ]
    parts += [
        "## What it is not for",
        f"It was tested on {names_of(plan.protocol.workspace.manifest.eval_splits('test'))} alone. "
        "Images from other sensors, sources or attacks may be scored worse, and a threshold that "
        "was fixed on these validation images may not hold there: score images of your own before "
        "you rely on it (`preceptor evaluate`). Its maps show where it looks, and not why.",
        "## How it was made",
        *methods(plan, results),
        f"Run `{best.run}`. `preceptor evaluate` scores a manifest with this folder, and "
        "`preceptor.models.load_model` loads it.",
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table as Markdown with its caption; the best of a column is bold."""
    rows = [
        [plain(line.heading), *(_marked(cell.text, cell.note, cell.best) for cell in line.cells)]
        for line in table.lines
    ]
    head = [plain(name) for name in (table.corner, *table.columns)]
    return "\n".join(
        [f"**{plain(table.caption)}**", "", _bars(head), _bars(["---"] * len(head))]
        + [_bars(row) for row in rows]
    )


def _marked(text: str, note: str, best: bool) -> str:
    shown = f"**{plain(text)}**" if best else plain(text)
    return f"{shown} ({plain(note)})" if note else shown


def plain(text: str) -> str:
    """Text without what Markdown takes for the end of a cell."""
    return text.replace("|", "\\|")


def _bars(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
