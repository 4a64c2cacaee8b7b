"""The report as one HTML file: its sections, each with sentences, figures and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from preceptor.metrics.scores import ALL_SOURCES
from preceptor.report import plots, tables
from preceptor.report.blocks import (
    Block,
    Chapter,
    Details,
    ExportedFile,
    FigureBlock,
    PanelsBlock,
    Section,
    Table,
    TableBlock,
    Text,
    common_seeds_text,
    html_environment,
    names_of,
    short,
    slug,
    unique_names,
)
from preceptor.report.figures import Figure
from preceptor.report.methods import annotations_table, images_seen_table, methods, study_name
from preceptor.report.panels import Panels
from preceptor.report.tables import DomainTables
from preceptor.report.words import (
    QUESTIONS,
    SHOWN,
    DomainFindings,
    Findings,
    agreement_words,
    any_map_words,
    place_sentence,
    rung_sentences,
)
from preceptor.results.comparisons import PUBLISHED, reproductions
from preceptor.results.domain import Results, StudyResults
from preceptor.results.record import OVERALL, records
from preceptor.study.config import Publication
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Failure
from preceptor.utils.text import DASH, interval, number

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
_SOURCES: dict[Publication, str] = {
    "teaching-ai-to-teach": "Published: Crum, Boyd, Bowyer, Czajka, Teaching AI to Teach, BMVC "
    "2023, Table 2, with Baseline 1 at α 0.5, maps of a human-guided Xception (CAM) and Students "
    "at α 0.01. Here, Teacher and α of the Students are selected on validation data."
}
Blocks = list[Block | None]


def render_page(
    study: StudyPlan,
    found: StudyResults,
    findings: Findings,
    domains: Section | None,
    chapters: list[Chapter],
    *,
    exports: Sequence[ExportedFile],
    failed: dict[str, Failure],
    files: list[str],
) -> str:
    """Page as HTML."""
    top = findings.verdict
    first = [] if study.has_domains or top.kind == "open" else findings.by_domain[""].sentences[:1]
    links: dict[str, list[tuple[str, str, str]]] = {}
    for file in exports:
        links.setdefault(f"{file.folder}/{file.stem}", []).append(file.link)
    context: dict[str, Any] = {
        "name": study_name(study),
        "facts": _facts(study, found),
        "verdict": top,
        "summary": " ".join(filter(None, [top.text, *first, top.place])),
        "rule": SHOWN,
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
        "links": links,
        "files": [(name, text) for name, text in FILES.items() if name in files],
    }
    return html_environment().get_template("report.html.j2").render(context)


def headlines(plan: Plan, results: Results) -> list[dict[str, str]]:
    """Student, better baseline, difference and interval for each backbone."""
    found, whole = [], results.table
    whole = whole[(whole["set"] == results.primary) & (whole["source"] == ALL_SOURCES)]
    compared = results.comparisons[results.comparisons["question"] == "RQ2"]
    for backbone in plan.protocol.study.students:
        means = whole[whole["backbone"] == backbone].set_index("key")["mean"]
        pairs = compared[compared["backbone"] == backbone].dropna(subset=["mean"])
        if pairs.empty or "student" not in means:
            continue
        hardest = records(pairs.sort_values("mean", kind="stable"))[0]
        key, mean, n = hardest["key_b"], hardest["mean"], int(hardest["n"])
        spread = interval(hardest["low"], hardest["high"])
        spread = "one seed: no interval" if spread == DASH else spread
        note = common_seeds_text(mean, means["student"], means.get(key, math.nan), n)
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


def chapter(
    plan: Plan,
    results: Results,
    findings: DomainFindings,
    shared: DomainTables,
    panels: Panels | None,
    note: str,
    key: str = "",
) -> Chapter:
    """Chapter of one domain."""
    study = plan.protocol.study

    def section(name: str, short: str, title: str, blocks: Iterable[Block | None]) -> Section:
        there = [block for block in blocks if block is not None]
        return Section(f"{key}-{name}" if key else name, short, title, unique_names(there))

    def asked(name: str, short: str, blocks: Blocks) -> Section:
        answer = findings.answers.get(name, "")
        lead = Text(answer, "answer") if answer else None
        return section(name.lower(), short, _question(name), [lead, *blocks])

    sections = [
        section("ladder", "Ladder", "What the maps are worth", _ladder(results)),
        asked("RQ1", "RQ1", _which_teacher(plan, results)),
        asked("RQ2", "RQ2", _every_backbone(results, shared)),
        asked("RQ3", "RQ3", _how_much(plan, results, findings.sentences)),
    ]
    if study.published is not None:
        blocks = _published(study.published, results)
        sections.append(section("published", "Published", "Published results", blocks))
    if study.budgets:
        sections.append(asked("budget", "Annotations", _annotations(plan, results, shared)))
    sections += [
        section("errors", "Error rates", "Error rates", _errors(plan, results, shared)),
        section("sources", "Sources", "Sources and other sets", _sources(plan, results, shared)),
        section("seeds", "Seeds", "Every seed", _seeds(plan, results)),
        section("alpha", "Choice of α", "Selection of α", _alphas(plan, results)),
        section("roc", "ROC", "ROC curves", _rocs(plan, results)),
        section("reliability", "Reliability", "Reliability of scores", _reliability(plan, results)),
        section("images", "Images", "Saliency maps", [PanelsBlock(panels, note)]),
        section("methods", "Methods", "Methods", _methods(plan, results)),
    ]
    return Chapter(plan.domain, sections, key)


def _question(name: str) -> str:
    """Question as a heading."""
    question = QUESTIONS[name]
    return f"{name}: {question[:1].lower()}{question[1:]}" if name.startswith("RQ") else question


def domains_section(found: StudyResults, findings: Findings, table: Table | None) -> Section:
    """Section on RQ4, over all domains; `table` from `tables.domain_table`."""
    several = any(len(one.ladders_on(one.primary)) > 1 for one in found.by_domain.values())
    rows = [
        (f"{name}, {ladder.backbone}" if several else name, ladder)
        for name, one in found.by_domain.items()
        for ladder in one.ladders_on(one.primary)
    ]
    caption = "Student minus each baseline, mean and 95 % interval"
    blocks: Blocks = [
        Text(findings.across, "answer"),
        _ladder_figure(rows, "AUC on the primary set"),
        _drawn("domains", [(caption, plots.domain_plot(found.domains))]),
        _table("domains", table),
    ]
    return Section("rq4", "RQ4", _question("RQ4"), [one for one in blocks if one is not None])


def _ladder(results: Results) -> Blocks:
    found = results.ladders_on(results.primary)
    if not found:
        return [_unscored("Student", results)]
    definition, agreement = any_map_words(found), agreement_words(found)
    others: list[Text | TableBlock] = []
    for name in dict.fromkeys(ladder.set for ladder in results.ladders):
        if name != results.primary and (one := tables.rung_table(results.ladders_on(name))):
            others.append(TableBlock(f"rungs-{slug(name)}", one))
    return [
        Text(place_sentence(results) or " ".join(rung_sentences(found)), "answer"),
        Text(definition) if definition else None,
        _ladder_figure([(one.backbone, one) for one in found], f"AUC on {results.primary}"),
        _table("rungs", tables.rung_table(found)),
        Text(agreement) if agreement else None,
        Details("The same on the other sets", others) if others else None,
    ]


def _table(name: str, table: Table | None) -> TableBlock | None:
    return TableBlock(name, table) if table is not None else None


def _ladder_figure(rows: Sequence[tuple[str, Any]], axis: str) -> FigureBlock | None:
    caption = "Mean AUC and 95 % interval over seeds; the gain (place) is paired by seed"
    return _drawn("rungs", [(caption, plots.ladder_plot(rows, axis))])


def _unscored(what: str, results: Results) -> Text:
    return Text(f"No {what} has been scored on {results.primary} yet.", "none")


def _which_teacher(plan: Plan, results: Results) -> Blocks:
    choice = plan.teacher_choice
    return [
        _figures("teachers", plan.protocol.study.teachers, plots.teacher_plot, plan, results),
        *_compared(results, ("RQ1", "saliency")),
        Text("Selection of the Teacher", "heading"),
        Text(choice.reason) if choice else Text("No Teacher has been selected yet.", "none"),
        _table("chosen", tables.teacher_table(plan, results)),
    ]


def _every_backbone(results: Results, shared: DomainTables) -> Blocks:
    main = shared.sets.get(results.primary)
    blocks: Blocks = [_unscored("model", results)]
    if main is not None:
        text = (
            "▲ marks the highest mean of a column, except for the ceiling, which uses all "
            "available human maps and estimates what more annotations can gain, and for rows "
            "that are trained on the set."
        )
        blocks = [Text(text), TableBlock("main", main)]
    caption = f"Student minus each baseline on {results.primary}, mean and 95 % interval"
    drawn = _drawn("backbones", [(caption, plots.backbone_plot(results))])
    return [*blocks, drawn, *_compared(results, ("RQ2",))]


def _how_much(plan: Plan, results: Results, sentences: list[str]) -> Blocks:
    names = [*plan.protocol.study.students, OVERALL]
    drawn = _figures("differences", names, plots.forest_plot, plan, results)
    text = (
        f"Difference of the AUC on {results.primary}, Student minus the model of the row: mean "
        "over seeds and 95 % interval. Above zero, the Student is better."
    )
    questions = ("overall", "RQ3", "control", "detector", "ceiling", "start")
    every = [Text(one) for one in sentences]
    return [
        Text(text) if drawn else None,
        drawn,
        _table("share", tables.share_table(results)),
        *_compared(results, questions),
        Details("All comparisons in sentences", [*every]) if every else None,
    ]


def _published(publication: Publication, results: Results) -> Blocks:
    """Published results beside those of the study."""
    found = reproductions(publication, results.rows, results.figures, results.primary)
    if not found:
        names = ", ".join(dict.fromkeys(backbone for backbone, _ in PUBLISHED[publication]))
        text = (
            f"No result on {results.primary} yet for a backbone of the published table ({names})."
        )
        return [Text(text, "none")]
    known = [one for one in found if math.isfinite(one.low)]
    above, below = sum(one.low > 0 for one in known), sum(one.high < 0 for one in known)
    text = (
        f"Of {len(known)} published means, {len(known) - above - below} are within the 95 % "
        f"interval of this study's mean, {below} are above it and {above} below it."
    )
    if not known:
        text = (
            "The differences from the published results have no intervals: intervals need two "
            "seeds or more."
        )
    table = TableBlock("published", tables.published_table(results, found))
    return [Text(text, "answer"), Text(_SOURCES[publication]), table]


def _annotations(plan: Plan, results: Results, shared: DomainTables) -> Blocks:
    study = plan.protocol.study
    if results.budget.empty:
        return [Text("No number of annotated images has been completed yet.", "none")]
    text = (
        "Bands are 95 % intervals of the mean over seeds, with a new draw of annotated images for "
        "each seed; horizontal lines are the rows that use the labels or the human maps of all "
        "training images."
    )
    blocks: Blocks = [Text(text)]
    for backbone in study.students:
        auc, maps = plots.budget_plot(study, results, backbone), plots.maps_plot(results, backbone)
        drawings = [(f"{backbone}: AUC by annotations", auc), ("The Teacher's maps", maps)]
        blocks.append(_drawn(f"curve-{slug(backbone)}", drawings))
        blocks.append(_table(f"table-{slug(backbone)}", shared.budgets.get(backbone)))
    return blocks


def _errors(plan: Plan, results: Results, shared: DomainTables) -> Blocks:
    study, blocks = plan.protocol.study, Blocks()
    if results.positive is None:
        count = len(results.classes)
        text = f"Error rates need a positive class; this study has {count} classes."
        blocks.append(Text(text, "none"))
    elif results.rates.empty:
        blocks.append(Text("No model has been scored on a test set yet.", "none"))
    for name in shared.tests:
        own: list[Text | TableBlock] = []
        for backbone in study.students:
            for kind, table in (
                ("fixed", shared.fixed_rates.get((name, backbone))),
                ("roc", shared.roc_rates.get((name, backbone))),
                ("further", tables.further_table(results, name, backbone)),
            ):
                key = f"{kind}-{slug(name)}-{slug(backbone)}"
                own += [TableBlock(key, table)] if table else []
        if name == results.primary:
            blocks += own
        elif own:
            blocks.append(Details(f"The same on {name}", own))
    return blocks


def _sources(plan: Plan, results: Results, shared: DomainTables) -> Blocks:
    blocks: Blocks = []
    for name in shared.tests:
        for backbone in plan.protocol.study.students:
            for kind, table in (
                ("source", shared.sources.get((name, backbone))),
                ("class", tables.class_table(results, name, backbone)),
            ):
                key = f"{kind}-{slug(name)}-{slug(backbone)}"
                blocks += [TableBlock(key, table)] if table else []
    if blocks:
        text = (
            "The AUC of a source with positives only is computed with all negatives of its set. "
            "▲ marks the highest mean of a row, except for the ceiling and for columns that are "
            "trained on the set. Results of validation sets by source are in table.csv."
        )
        blocks.insert(0, Text(text))
    others = [(name, one) for name, one in shared.sets.items() if name != results.primary]
    if others:
        inner = [TableBlock(f"set-{slug(name)}", one) for name, one in others]
        blocks.append(Details("The main table on the other sets", [*inner]))
    return blocks or [Text("Nothing has been scored yet.", "none")]


def _seeds(plan: Plan, results: Results) -> Blocks:
    drawn = _figures("dots", plan.protocol.study.students, plots.dot_plot, plan, results)
    text = f"Each dot is the AUC of one training on {results.primary}; bars are means over seeds."
    return [Text(text), drawn] if drawn else [_unscored("model", results)]


def _alphas(plan: Plan, results: Results) -> Blocks:
    drawn = _figures("curves", plan.protocol.study.students, plots.alpha_plot, plan, results)
    text = (
        "Validation AUC (on the worst set, mean over seeds) at each α; the selected α is ringed. "
        "Test sets were not used."
    )
    return [Text(text), drawn] if drawn else [Text("No α has been selected yet.", "none")]


def _rocs(plan: Plan, results: Results) -> Blocks:
    drawn = _figures("curves", plan.protocol.study.students, plots.roc_plot, plan, results)
    if drawn:
        text = f"On {results.primary}, mean over seeds at each false positive rate."
        return [Text(text), drawn]
    if results.positive is None:
        text = (
            f"ROC curves need a positive class; this study has {len(results.classes)} classes, "
            "and its AUC is the mean one-vs-rest AUC."
        )
        return [Text(text, "none")]
    return [_unscored("model", results)]


def _reliability(plan: Plan, results: Results) -> Blocks:
    blocks: Blocks = []
    for backbone in plan.protocol.study.students:
        found = plots.reliability(plan, results, backbone)
        if found is not None:
            drawing, table = found
            blocks.append(FigureBlock(f"curves-{slug(backbone)}", [(backbone, drawing)]))
            blocks.append(TableBlock(f"error-{slug(backbone)}", table))
    if not blocks:
        return [_unscored("model", results)]
    what = "The score" if results.positive is not None else "The highest probability"
    text = (
        f"{what} against the observed frequency on {results.primary}, in bins with equal numbers "
        "of images, for the scores of all seeds together. The scores are not calibrated; preceptor "
        "calibrate calibrates them on validation images."
    )
    return [Text(text), *blocks]


def _methods(plan: Plan, results: Results) -> Blocks:
    return [
        *(Text(text) for text in methods(plan, results)),
        _table("images-seen", images_seen_table(plan, results)),
        TableBlock("annotated", annotations_table(plan)),
    ]


def _compared(results: Results, questions: Sequence[str]) -> Blocks:
    found = tables.comparison_tables(results, questions)
    return [TableBlock(f"comparison-{question.lower()}", table) for question, table in found]


def _figures(
    name: str,
    names: Sequence[str],
    draw: Callable[[Plan, Results, str], Figure | None],
    plan: Plan,
    results: Results,
) -> FigureBlock | None:
    """Figures of the backbones that have one."""
    return _drawn(name, [(one, draw(plan, results, one)) for one in names])


def _drawn(name: str, drawings: Sequence[tuple[str, Figure | None]]) -> FigureBlock | None:
    there = [(caption, drawing) for caption, drawing in drawings if drawing is not None]
    return FigureBlock(name, there) if there else None
