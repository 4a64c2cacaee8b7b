"""Model card of the selected Student, with the numbers of the report."""

from __future__ import annotations

from preceptor.evaluation.operating_points import TERMS
from preceptor.report import rate_tables
from preceptor.report.cells import Table
from preceptor.report.domain_tables import DomainTables
from preceptor.report.methods import methods
from preceptor.report.sentences import names_of
from preceptor.report.verdict import Verdict
from preceptor.results.best import Best
from preceptor.results.domain import Results
from preceptor.study.plan import Plan
from preceptor.training.record import RunRecord


def model_card(
    plan: Plan, results: Results, shared: DomainTables, found: Verdict, best: Best
) -> str:
    """Model card as Markdown.

    Args:
        plan, results: Plan and results of the domain.
        shared: Tables of the domain.
        found: Verdict of the domain.
        best: Selected Student.
    """
    study = plan.protocol.study
    folder = plan.protocol.run_folder(best.run)
    record = RunRecord.read(folder)
    positive = results.positive
    scored = (
        f"The score is the probability of `{positive}`." if positive else "Scores of each class."
    )
    parts = [
        f"# {best.arm.backbone}: {' or '.join(results.classes)}",
        f"A {best.arm.backbone} network that classifies images of {record.input_size} × "
        f"{record.input_size} pixels as {' or '.join(results.classes)}. {scored} It is a Student: "
        f"it was trained on all training images, guided ({best.arm.setting}) by the saliency maps "
        f"of a Teacher ({plan.winner()}). It is seed {best.seed} of {len(plan.seeds)} seeds, "
        f"the median on validation (AUC {best.value:.3f} on the worst validation set).",
        "## Results of the study",
        f"**{found.headline}.** {found.sentences}",
    ]
    at = (results.primary, best.arm.backbone)
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
            f"An image is classified as `{positive}` if its score is at least the threshold. The "
            "thresholds were fixed on validation images and are in `model.json`; rules that the "
            "number of validation images does not allow are omitted.",
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
        "## Limitations",
        f"It was tested only on {names_of(plan.protocol.workspace.manifest.eval_splits('test'))}. "
        "Accuracy may be lower on images from other sensors, sources or attacks, and the error "
        "rates at the thresholds may differ: evaluate the model on your own images before use "
        "(`preceptor evaluate`). Saliency maps show where the evidence for a class is, not why.",
        "## Methods",
        *methods(plan, results),
        f"Run `{best.run}`. `preceptor predict` applies this model to images, and `preceptor "
        "evaluate` evaluates it on a manifest; `preceptor.load` loads it.",
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Table as Markdown with its caption; the best of a column is bold."""
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
    """Text with escaped cell separators of Markdown."""
    return text.replace("|", "\\|")


def _bars(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
