"""Sections of the report on one domain, as blocks that the template renders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from preceptor.evaluation.paired_tests import RELEVANT_DIFFERENCE
from preceptor.report import figures, rate_tables, tables
from preceptor.report.annotators_on_grid import annotator_sentence
from preceptor.report.blocks import (
    Block,
    Chapter,
    Details,
    FigureBlock,
    PanelsBlock,
    Section,
    TableBlock,
    Text,
    slug,
    unique_names,
)
from preceptor.report.budget_figure import budget_plot, maps_plot
from preceptor.report.cells import Cell, Line, Table
from preceptor.report.domain_tables import DomainTables
from preceptor.report.findings import DomainFindings, Findings
from preceptor.report.ladder_blocks import domains_ladder, ladder_blocks
from preceptor.report.methods import methods
from preceptor.report.panels import Panels
from preceptor.report.published_blocks import published_blocks
from preceptor.report.questions import QUESTIONS
from preceptor.report.reliability_blocks import reliability_blocks
from preceptor.report.svg import Figure
from preceptor.report.verdict import annotation_counts
from preceptor.results.domain import Results, StudyResults
from preceptor.results.rows import OVERALL
from preceptor.study.plan import Plan


def chapter(
    plan: Plan,
    results: Results,
    findings: DomainFindings,
    shared: DomainTables,
    panels: Panels | None,
    note: str,
    key: str = "",
) -> Chapter:
    """Chapter of one domain.

    Args:
        plan, results, findings: Plan, results and findings of the domain.
        shared: Tables of the domain that are also used elsewhere.
        panels: Images with maps, or None.
        note: Reason of missing panels.
        key: Key of the domain, see `slugs`; "" without domains.
    """
    prefix = f"{key}-" if key else ""

    def section(key: str, short: str, title: str, blocks: Sequence[Block | None]) -> Section:
        there = [block for block in blocks if block is not None]
        return Section(prefix + key, short, title, unique_names(there))

    def asked(name: str, short: str, blocks: Sequence[Block | None]) -> Section:
        answer = findings.answers.get(name, "")
        lead = Text(answer, "answer") if answer else None
        return section(name.lower(), short, _question(name), [lead, *blocks])

    sections = [
        section("ladder", "Ladder", "What the maps are worth", ladder_blocks(results)),
        asked("RQ1", "RQ1", _which_teacher(plan, results)),
        asked("RQ2", "RQ2", _every_backbone(results, shared)),
        asked("RQ3", "RQ3", _how_much(plan, results, findings.sentences)),
    ]
    publication = plan.protocol.study.published
    if publication is not None:
        blocks = published_blocks(publication, results)
        sections.append(section("published", "Published", "Published results", blocks))
    if plan.protocol.study.budgets:
        sections.append(asked("budget", "Annotations", _annotations(plan, results, shared)))
    sections += [
        section("errors", "Error rates", "Error rates", _errors(plan, results, shared)),
        section("sources", "Sources", "Sources and other sets", _sources(plan, results, shared)),
        section("seeds", "Seeds", "Every seed", _seeds(plan, results)),
        section("alpha", "Choice of α", "Selection of α", _alphas(plan, results)),
        section("roc", "ROC", "ROC curves", _rocs(plan, results)),
        section(
            "reliability", "Reliability", "Reliability of scores", reliability_blocks(plan, results)
        ),
        section("images", "Images", "Saliency maps", [PanelsBlock(panels, note)]),
        section("methods", "Methods", "Methods", _methods(plan, results)),
    ]
    return Chapter(plan.domain, sections, key)


def domains_section(found: StudyResults, findings: Findings, table: Table | None) -> Section:
    """Section on RQ4, over all domains; `table` from `study_tables.domain_table`."""
    drawing = figures.domain_plot(found.domains)
    ladder = domains_ladder(found)
    blocks: list[Block] = [Text(findings.across, "answer"), *([ladder] if ladder else [])]
    if drawing is not None:
        legend = [(key, f"− {name}") for key, name in _BASELINES]
        caption = "Student minus each baseline, mean and 95 % interval"
        blocks.append(FigureBlock("domains", [(caption, drawing)], legend, marks=True))
    if table is not None:
        blocks.append(TableBlock("domains", table))
    return Section("rq4", "RQ4", _question("RQ4"), blocks)


def _question(name: str) -> str:
    """Question as a heading."""
    question = QUESTIONS[name]
    return f"{name}: {question[:1].lower()}{question[1:]}" if name.startswith("RQ") else question


def _which_teacher(plan: Plan, results: Results) -> list[Block | None]:
    study = plan.protocol.study
    choice = plan.teacher_choice
    chosen = tables.teacher_table(plan, results)
    blocks: list[Block | None] = [
        _drawn("teachers", _each(study.teachers, lambda n: figures.teacher_plot(plan, results, n)))
    ]
    blocks += _compared(results, ("RQ1", "saliency"))
    blocks.append(Text("Selection of the Teacher", "heading"))
    blocks.append(
        Text(choice.reason) if choice else Text("No Teacher has been selected yet.", "none")
    )
    blocks.append(TableBlock("chosen", chosen) if chosen else None)
    among_people = annotator_sentence(plan) if chosen else ""
    blocks.append(Text(among_people) if among_people else None)
    return blocks


def _every_backbone(results: Results, shared: DomainTables) -> list[Block | None]:
    main = shared.sets.get(results.primary)
    blocks: list[Block | None] = []
    if main is not None:
        blocks += [
            Text(
                "▲ marks the highest mean of a column, except for the ceiling, which uses all "
                "available human maps and estimates what more annotations can gain, and for rows "
                "that are trained on the set."
            ),
            TableBlock("main", main),
        ]
    else:
        blocks.append(Text(f"No model has been scored on {results.primary} yet.", "none"))
    drawing = figures.backbone_plot(results)
    if drawing is not None:
        where = f"Student minus each baseline on {results.primary}, mean and 95 % interval"
        blocks.append(FigureBlock("backbones", [(where, drawing)], _BASELINES, marks=True))
    return blocks + _compared(results, ("RQ2",))


def _how_much(plan: Plan, results: Results, sentences: list[str]) -> list[Block | None]:
    study = plan.protocol.study
    names = [*study.students, OVERALL]
    blocks: list[Block | None] = []
    drawings = _each(names, lambda name: figures.forest_plot(results, name))
    if drawings:
        blocks.append(
            Text(
                f"Difference of the AUC on {results.primary}, Student minus the model of the row: "
                "mean over seeds and 95 % interval. Above zero, the Student is better."
            )
        )
    blocks.append(_drawn("differences", drawings))
    share = tables.share_table(results)
    blocks.append(TableBlock("share", share) if share else None)
    questions = ("overall", "RQ3", "control", "detector", "ceiling", "variant", "start")
    blocks += _compared(results, questions)
    if sentences:
        blocks.append(Details("All comparisons in sentences", [Text(one) for one in sentences]))
    return blocks


def _annotations(plan: Plan, results: Results, shared: DomainTables) -> list[Block | None]:
    study = plan.protocol.study
    if results.budget.empty:
        return [Text("No number of annotated images has been completed yet.", "none")]
    blocks: list[Block | None] = [
        Text(
            "Bands are 95 % intervals of the mean over seeds, with a new draw of annotated images "
            "for each seed; horizontal lines are the rows that use the labels or the human maps of "
            "all training images."
        )
    ]
    for backbone in study.students:
        drawings = [
            (title, drawing)
            for title, drawing in (
                (
                    f"{backbone}: AUC by annotations",
                    budget_plot(results, backbone, RELEVANT_DIFFERENCE, study.budgets),
                ),
                ("The Teacher's maps", maps_plot(results, backbone)),
            )
            if drawing is not None
        ]
        legend = [*_AT_BEST[:1], ("student", "Student"), *_AT_BEST[1:]]
        legend += [("mapper", "Mapper, annotated"), ("mapper_all", "Mapper, all maps")]
        legend.append(("teacher", "Teacher's maps"))
        blocks.append(_drawn(f"curve-{slug(backbone)}", drawings, legend))
        table = shared.budgets.get(backbone)
        blocks.append(TableBlock(f"table-{slug(backbone)}", table) if table else None)
    return blocks


def _errors(plan: Plan, results: Results, shared: DomainTables) -> list[Block | None]:
    study, blocks = plan.protocol.study, list[Block | None]()
    if results.positive is None:
        blocks.append(
            Text(
                f"Error rates need a positive class; this study has {len(results.classes)} "
                "classes.",
                "none",
            )
        )
    elif results.rates.empty:
        blocks.append(Text("No model has been scored on a test set yet.", "none"))
    for name in shared.tests:
        own: list[TableBlock] = []
        for backbone in study.students:
            for kind, made in (("fixed", shared.fixed_rates), ("roc", shared.roc_rates)):
                table = made.get((name, backbone))
                key = f"{kind}-{slug(name)}-{slug(backbone)}"
                own += [TableBlock(key, table)] if table else []
            further = rate_tables.further_table(results, name, backbone)
            key = f"further-{slug(name)}-{slug(backbone)}"
            own += [TableBlock(key, further)] if further else []
        if name == results.primary:
            blocks += own
        elif own:
            blocks.append(Details(f"The same on {name}", [*own]))
    return blocks


def _sources(plan: Plan, results: Results, shared: DomainTables) -> list[Block | None]:
    blocks: list[Block | None] = []
    for name in shared.tests:
        for backbone in plan.protocol.study.students:
            for kind, table in (
                ("source", shared.sources.get((name, backbone))),
                ("class", tables.class_table(results, name, backbone)),
            ):
                key = f"{kind}-{slug(name)}-{slug(backbone)}"
                blocks.append(TableBlock(key, table) if table else None)
    if any(blocks):
        text = (
            "The AUC of a source with positives only is computed with all negatives of its set. "
            "▲ marks the highest mean of a row, except for the ceiling and for columns that are "
            "trained on the set. Results of validation sets by source are in table.csv."
        )
        blocks.insert(0, Text(text))
    others: list[Text | TableBlock] = []
    for name, one in shared.sets.items():
        others += [TableBlock(f"set-{slug(name)}", one)] if name != results.primary else []
    if others:
        blocks.append(Details("The main table on the other sets", others))
    return blocks if any(blocks) else [Text("Nothing has been scored yet.", "none")]


def _seeds(plan: Plan, results: Results) -> list[Block | None]:
    blocks: list[Block | None] = []
    drawings = _each(plan.protocol.study.students, lambda name: figures.dot_plot(results, name))
    if not drawings:
        return [*blocks, Text(f"No model has been scored on {results.primary} yet.", "none")]
    text = f"Each dot is the AUC of one training on {results.primary}; bars are means over seeds."
    return [*blocks, Text(text), FigureBlock("dots", drawings)]


def _alphas(plan: Plan, results: Results) -> list[Block | None]:
    drawings = _each(plan.protocol.study.students, lambda name: figures.alpha_curve(results, name))
    if not drawings:
        return [Text("No α has been selected yet.", "none")]
    text = (
        "Validation AUC (on the worst set, mean over seeds) at each α; the selected α is ringed. "
        "Test sets were not used."
    )
    legend = [("baseline1", "Baseline 1"), ("student", "Student"), ("ceiling", "Ceiling")]
    return [Text(text), FigureBlock("curves", drawings, legend)]


def _rocs(plan: Plan, results: Results) -> list[Block | None]:
    drawings = _each(
        plan.protocol.study.students, lambda name: figures.roc_plot(plan, results, name)
    )
    if drawings:
        text = f"On {results.primary}, mean over seeds at each false positive rate."
        legend = [*_BASELINES, ("student", "Student"), ("ceiling", "Ceiling")]
        return [Text(text), FigureBlock("curves", drawings, legend)]
    if results.positive is None:
        text = (
            f"ROC curves need a positive class; this study has {len(results.classes)} classes, "
            "and its AUC is the mean one-vs-rest AUC."
        )
        return [Text(text, "none")]
    return [Text(f"No model has been scored on {results.primary} yet.", "none")]


def _methods(plan: Plan, results: Results) -> list[Block | None]:
    blocks: list[Block | None] = [Text(text) for text in methods(plan, results)]
    seen = tables.images_seen_table(plan, results)
    blocks.append(TableBlock("images-seen", seen) if seen else None)
    lines = [
        Line(title, [Cell(count), Cell(remark)]) for title, count, remark in annotation_counts(plan)
    ]
    table = Table("Annotations used by this study.", "Kind", ["Images", "Remark"], lines)
    return [*blocks, TableBlock("annotated", table)]


_BASELINES = [("baseline1", "Baseline 1, best α"), ("baseline2", "Baseline 2")]
_AT_BEST = [("baseline1", "Baseline 1"), ("baseline2", "Baseline 2"), ("ceiling", "Ceiling")]


def _compared(results: Results, questions: Sequence[str]) -> list[Block | None]:
    found = tables.comparison_tables(results, questions)
    return [TableBlock(f"comparison-{question.lower()}", table) for question, table in found]


def _drawn(
    name: str, drawings: list[tuple[str, Figure]], legend: list[tuple[str, str]] | None = None
) -> FigureBlock | None:
    return FigureBlock(name, drawings, legend or []) if drawings else None


def _each(names: Sequence[str], draw: Callable[[str], Figure | None]) -> list[tuple[str, Figure]]:
    """Figures of the backbones that have one."""
    return [(name, made) for name in names if (made := draw(name)) is not None]
