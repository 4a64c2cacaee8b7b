"""The report as one HTML file: the verdict, one figure, and folded sections with what is behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.metrics.auc import roc_curve
from preceptor.metrics.paired_tests import UNDEFINED
from preceptor.metrics.scores import stack
from preceptor.metrics.split_names import kind_or_none
from preceptor.report import tables
from preceptor.report.blocks import (
    Block,
    FigureBlock,
    Section,
    Text,
    common_seeds_text,
    html_environment,
    names_of,
    short,
    slug,
)
from preceptor.report.figures import Curve, Figure, Mark, curves_figure, rows_figure
from preceptor.report.methods import methods, study_name
from preceptor.report.words import (
    QUESTIONS,
    RUNGS,
    SHOWN,
    DomainFindings,
    Findings,
    any_map_words,
    gained,
    other_smallest,
    place_sentence,
)
from preceptor.results.comparisons import PUBLISHED, reproductions
from preceptor.results.domain import Results, StudyResults
from preceptor.results.ladder import Ladder, enough
from preceptor.results.record import records, whole_set
from preceptor.study.config import Publication, StudyConfig
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Arm, Failure
from preceptor.utils.text import interval, number

FILES = {
    "table.csv": "the main table with all evaluation sets and sources",
    "summary.md": "the verdict, what to do next and the main table of every domain",
    "results.csv": "metrics of every run, set and source",
    "rates.csv": "error rates of every run and test set",
    "comparisons.csv": "paired comparisons with intervals and p-values",
    "ladder.csv": "AUC without maps, with any map, the Teacher's and all human maps, with gains",
    "domains.csv": "the Student compared with both baselines in every domain",
    "budget.csv": "AUC by number of annotated images",
    "runs.csv": "every training, with times",
    "figures/": "every figure of this page as SVG",
    "summary.json": "verdict and answers of this page, missing and failed steps",
    "selection.json": "selections on validation, with reasons",
    "study.yaml": "the resolved study file",
    "best/": "the selected model as a model folder with its card",
}
_SOURCES: dict[Publication, str] = {
    "teaching-ai-to-teach": "Published: Crum, Boyd, Bowyer, Czajka, Teaching AI to Teach, BMVC "
    "2023, Table 2, with Baseline 1 at α 0.5, maps of a human-guided Xception (CAM) and Students "
    "at α 0.01. Here, Teacher and α of the Students are selected on validation data."
}


@dataclass(frozen=True)
class Chapter:
    """Chapter of the page on one domain."""

    title: str  # domain, or "" in a study without domains
    hints: list[tuple[str, str]]
    sections: list[Section]
    key: str = ""  # unique prefix of the keys of its sections


def render_page(
    study: StudyPlan,
    results: StudyResults,
    findings: Findings,
    domains: Section | None,
    chapters: list[Chapter],
    *,
    failed: dict[str, Failure],
    files: list[str],
) -> str:
    """Page as HTML."""
    top = findings.verdict
    several = study.has_domains or top.kind == "open"
    gain = "" if several else findings.by_domain[""].answers["RQ3"]
    context: dict[str, Any] = {
        "name": study_name(study),
        "facts": _facts(study, results),
        "verdict": top,
        "summary": f"{top.text} {gain}",
        "best": findings.best,
        "headlines": [
            card | {"domain": name}
            for name, plan in study.plans.items()
            for card in headlines(plan, results.by_domain[name])
        ],
        "failed": list(failed.values()),
        "missing": results.missing,
        "unscored": results.unscored,
        "progress": results.progress,
        "domains": domains,
        "chapters": chapters,
        "files": [(name, text) for name, text in FILES.items() if name in files],
    }
    return html_environment().get_template("report.html.j2").render(context)


def headlines(plan: Plan, results: Results) -> list[dict[str, str]]:
    """Student, better baseline, difference and interval for each backbone."""
    cards, whole = [], whole_set(results.table, results.setup.primary)
    compared = results.comparisons[results.comparisons["question"] == "RQ2"]
    for backbone in plan.protocol.study.students:
        means = whole[whole["backbone"] == backbone].set_index("key")["mean"]
        pairs = compared[compared["backbone"] == backbone].dropna(subset=["mean"])
        if pairs["key_b"].nunique() < 2 or "student" not in means:
            continue
        hardest = records(pairs.sort_values("mean", kind="stable"))[0]
        key, mean, n = hardest["key_b"], hardest["mean"], int(hardest["n"])
        spread = interval(hardest["low"], hardest["high"])
        spread = spread if n > 2 else f"{'one seed' if n == 1 else 'two seeds'}: no conclusion"
        note = common_seeds_text(mean, means["student"], means.get(key, math.nan), n)
        cards.append(
            {
                "backbone": backbone,
                "student": number(means["student"]),
                "baseline": number(means.get(key)),
                "name": short(key),
                "gain": number(mean, sign=True),
                "interval": f"{spread}; {note}" if note else spread,
            }
        )
    return cards


def _facts(study: StudyPlan, results: StudyResults) -> list[list[str]]:
    """Facts below the title, one line per domain."""
    about = []
    for domain in results.by_domain.values():
        own = domain.setup
        of = f"{own.domain}: " if own.domain else ""
        positive = f", positive {own.positive}" if own.positive is not None else ""
        regime = f"{'with' if own.clean_labels else 'without'} clean labels for the selection"
        regime += ", by swapped images" if own.swapped else ""
        about.append(
            f"{of}primary set {own.primary}, classes {names_of(own.classes)}{positive}, {regime}"
        )
    done, total = results.progress
    counts = sorted({len(plan.seeds) for plan in study})
    seeds = f"{names_of(map(str, counts))} seed{'s' if counts != [1] else ''}"
    work = [seeds, f"{done} of {total} trainings finished"]
    return [*([fact] for fact in about), work] if study.has_domains else [about + work]


def domains_section(results: StudyResults, findings: Findings) -> Section:
    """Section on RQ4, over all domains."""
    several = any(len(one.primary_ladders) > 1 for one in results.by_domain.values())
    rows = [
        (f"{name}, {ladder.backbone}" if several else name, ladder)
        for name, one in results.by_domain.items()
        for ladder in one.primary_ladders
    ]
    figure = _ladder_figure(ladder_plot(rows, "AUC on the primary set"))
    blocks = _there([figure, tables.domain_table(results.domains)])
    return Section("rq4", "RQ4", _question("RQ4"), blocks, findings.across)


def _question(name: str) -> str:
    """Question as a heading."""
    question = QUESTIONS[name]
    return f"{name}: {question[:1].lower()}{question[1:]}" if name.startswith("RQ") else question


def _there(blocks: Iterable[Block | None]) -> list[Block]:
    return [block for block in blocks if block is not None]


def _ladder_figure(figure: Figure | None) -> FigureBlock | None:
    caption = "Mean AUC and 95 % interval over seeds; the gain (place) is paired by seed"
    return FigureBlock("rungs", [(caption, figure)]) if figure else None


def chapter(
    plan: Plan, results: Results, findings: DomainFindings, images: Block, key: str = ""
) -> Chapter:
    """Chapter of one domain: an open section with one figure, and folded ones."""
    study, primary, answers = plan.protocol.study, results.setup.primary, findings.answers
    unscored = Text(f"No model has been scored on {primary} yet.", "none")
    no_student = Text(f"No Student has been scored on {primary} yet.", "none")
    sections: list[Section] = []

    def add(
        name: str,
        title: str,
        *blocks: Block | None,
        answer: str = "",
        empty: Text = unscored,
        folded: bool = True,
    ) -> None:
        own = f"{key}-{name}" if key else name
        sections.append(Section(own, "", title, _there(blocks) or [empty], answer, folded))

    ladder = results.primary_ladders
    figure = ladder_plot([(one.backbone, one) for one in ladder], f"AUC on {primary}")
    title, place = "What the maps are worth", place_sentence(results)
    add("ladder", title, _ladder_figure(figure), answer=place, empty=no_student, folded=bool(key))
    choice = plan.teacher_choice
    add(
        "rq1",
        _question("RQ1"),
        *tables.comparison_tables(results, ("RQ1", "saliency")),
        Text(choice.reason) if choice else None,
        tables.teacher_table(plan, results),
        answer=answers["RQ1"],
        empty=Text("No Teacher has been selected yet.", "none"),
    )
    sets = {name: tables.set_table(plan, results, name) for name in results.setup.sets}
    ranked = (
        "▲ marks the highest mean of a column, and of a row in tables by source, except for "
        "ceiling and mapper of all human maps, which estimate what more annotations can gain, and "
        "for rows that are trained on the set."
    )
    add(
        "rq2",
        _question("RQ2"),
        *((Text(ranked), sets[primary]) if sets.get(primary) else ()),
        *tables.comparison_tables(results, ("RQ2",)),
        Text(SHOWN),
        answer=answers["RQ2"],
    )
    questions = ("overall", "RQ3", "control", "detector", "ceiling", "start")
    add(
        "rq3",
        _question("RQ3"),
        *tables.comparison_tables(results, questions),
        Text(definition) if (definition := any_map_words(ladder)) else None,
        answer=answers["RQ3"],
        empty=no_student,
    )
    if len(study.guidances) > 1:
        none = Text("No method has been compared yet.", "none")
        add("guidance", "Guidance methods", *tables.guidance_tables(results), empty=none)
    if study.published is not None:
        add("published", "Published results", *_published(study.published, results))
    if study.budgets:
        add("budget", _question("budget"), *_budget(plan, results), answer=answers["budget"])
    tests = [name for name in results.setup.sets if kind_or_none(name) == "test"]
    makers = (tables.fixed_rate_table, tables.roc_rate_table)
    rates = [
        make(study, results, name, one)
        for name in tests
        for one in study.students
        for make in makers
    ]
    further = [tables.further_table(results, name, one) for name in tests for one in study.students]
    drawn = [(one, figure) for one in study.students if (figure := roc_plot(results, one))]
    curves = FigureBlock("curves", drawn) if drawn else None
    roc = f"ROC curves on {primary}, mean over seeds at each false positive rate."
    add("errors", "Error rates", *((Text(roc), curves) if curves else ()), *rates, *further)
    by_source = _there(
        make(results, name, one)
        for name in tests
        for one in study.students
        for make in (tables.source_table, tables.worst_source_table)
    )
    note = "The AUC of a source with positives only is computed with all negatives of its set."
    others = [one for name, one in sets.items() if name != primary]
    add(
        "sources",
        "Sources and other sets",
        *([Text(note)] if by_source else []),
        *by_source,
        *others,
    )
    none = Text("No α has been selected yet.", "none")
    add("alpha", "Selection of α", tables.alpha_table(results), empty=none)
    add("images", "Saliency maps", images)
    add("methods", "Methods", *(Text(text) for text in methods(plan, results)))
    return Chapter(plan.domain, findings.hints, sections, key)


def _published(publication: Publication, results: Results) -> list[Block]:
    """Published results beside those of the study."""
    found = reproductions(publication, results.setup.rows, results.figures, results.setup.primary)
    if not found:
        names = ", ".join(dict.fromkeys(backbone for backbone, _ in PUBLISHED[publication]))
        where = f"No result on {results.setup.primary} yet for a backbone"
        text = f"{where} of the published table ({names})."
        return [Text(text, "none")]
    judged = [mean for mean in found if math.isfinite(mean.low)]
    above, below = sum(mean.low > 0 for mean in judged), sum(mean.high < 0 for mean in judged)
    text = (
        f"Of {len(judged)} published means, {len(judged) - above - below} are within the 95 % "
        f"interval of this study's mean, {below} are above it and {above} below it."
    )
    if not judged:
        text = (
            "The differences from the published results have no intervals: intervals need two "
            "seeds or more."
        )
    return [Text(text), Text(_SOURCES[publication]), tables.published_table(results, found)]


def _budget(plan: Plan, results: Results) -> list[Block]:
    study = plan.protocol.study
    if results.budget.empty:
        return [Text("No number of annotated images has been completed yet.", "none")]
    text = (
        "Bands are 95 % intervals of the mean over seeds, with a new draw of annotated images for "
        "each seed; horizontal lines are the rows that use the labels or the human maps of all "
        "training images."
    )
    blocks: list[Block | None] = [Text(text)]
    for backbone in study.students:
        if figure := budget_plot(study, results, backbone):
            caption = f"{backbone}: AUC by annotations"
            blocks.append(FigureBlock(f"budget-{slug(backbone)}", [(caption, figure)]))
        blocks.append(tables.budget_table(study, results, backbone))
    return _there(blocks)


# Figures

_RUNG_KEYS = {"none": "baseline2", "any": "any", "teacher": "student", "human": "ceiling"}
_DRAWN = ("baseline1", "baseline2", "student", "ceiling")
_FPR = np.linspace(0, 1, 201)


def roc_plot(results: Results, backbone: str) -> Figure | None:
    """Mean ROC curves of the baselines, the ceiling and the Student on the primary set."""
    found = {
        row.key: curve
        for row in results.setup.rows
        if row.key in _DRAWN and backbone in row.arms
        if (curve := _mean_roc(results, row.arms[backbone])) is not None
    }
    if not found:
        return None
    curves = [
        Curve(short(key), key, [0, *_FPR], [0, *found[key]])
        for key in sorted(found, key=lambda key: key == "student")
    ]
    at_tenth = ", ".join(f"{short(key)} {number(c[20], 2)}" for key, c in found.items())
    title = (
        f"{backbone}: ROC on {results.setup.primary}. True positive rate at 10 % false: {at_tenth}"
    )
    labels = ("false positive rate", "true positive rate")
    return curves_figure(curves, title, *labels, unit=(True, True), diagonal=True, height=300)


def _mean_roc(results: Results, arm: Arm) -> NDArray[np.float64] | None:
    """Mean ROC curve over seeds at 201 false positive rates (vertical averaging)."""
    frames = results.record.tests_of(arm)
    if results.setup.positive is None or not frames:
        return None
    curves = []
    for seed in sorted(frames):
        labels, scores, _ = stack(
            [frames[seed]], results.setup.primary, results.setup.classes, results.setup.positive
        )
        if labels.all() or not labels.any():
            return None
        curves.append(np.interp(_FPR, *roc_curve(labels, scores[0])))
    mean: NDArray[np.float64] = np.mean(curves, axis=0)
    return mean


def ladder_plot(rows: Sequence[tuple[str, Ladder]], axis: str) -> Figure | None:
    """Ladders with 95 % intervals, one row per name, and the gain of the Teacher's maps."""
    drawn, notes = [], []
    for name, ladder in rows:
        marks = [
            Mark(RUNGS[one.name], _RUNG_KEYS[one.name], one.mean, *ends)
            for one in ladder.rungs
            for ends in [(one.low, one.high) if one.n > 2 else UNDEFINED]
        ]
        drawn.append((name, marks))
        place, other = ladder.place, other_smallest(ladder)
        note = f"place {gained(place)}" if place and math.isfinite(place.mean) else ""
        if note and other:
            note += f"\nover {short(other.control)} {gained(other.paired)}"
        notes.append(note.replace(" (", "\n("))  # one line would run into the axis
    return rows_figure(drawn, f"{axis} by the maps that guide", axis, joined=True, notes=notes)


def budget_plot(study: StudyConfig, results: Results, backbone: str) -> Figure | None:
    """AUC of Baseline 1, a mapper and the Student on the primary set by annotated images.

    Bands are 95 % intervals of the mean over seeds. Rows that use labels or maps of all images are
    horizontal lines. The number from which more annotations are known to increase the Student's AUC
    by less than the relevant difference is marked.
    """
    curve, table, primary = results.budget, results.table, results.setup.primary
    found = enough(curve, backbone, study.budgets, len(results.setup.seeds))
    curve = curve[(curve["backbone"] == backbone) & curve["mean"].notna()].sort_values("size")
    minutes = curve.drop_duplicates("size").set_index("size")["minutes"]
    drawn, said = [], []
    names = {"baseline1": "Baseline 1", "mapper": "Mapper, annotated", "student": "Student"}
    for key, name in names.items():
        if len(mine := curve[curve["line"] == key]):
            low, high = (mine[side].clip(0, 1) for side in ("low", "high"))
            drawn.append(Curve(name, key, mine["size"], mine["mean"], low, high, dots=True))
            values = (f"{number(row['mean'])} at {row['size']:,}" for row in records(mine))
            said.append(f"{name} {', '.join(values)}")
    if not drawn:
        return None
    whole = whole_set(table, primary)
    means = dict(whole.loc[whole["backbone"] == backbone, ["key", "mean"]].to_numpy())
    across = ("baseline2", "ceiling", "mapper_all")
    ticks = {
        float(size): f"{size:,}" + (f"\n{took:,.0f} min" if math.isfinite(took) else "")
        for size, took in zip(minutes.index.tolist(), minutes.tolist(), strict=True)
    }
    timed = ", minutes of annotation" if minutes.notna().any() else ""
    return curves_figure(
        drawn,
        f"{backbone}: AUC on {primary} over the number of annotated images: {'; '.join(said)}",
        f"annotated images (log scale){timed}",
        f"AUC on {primary}",
        levels={short(key): (key, float(means[key])) for key in across if key in means},
        ticks=ticks,
        mark=("enough", float(found.size)) if found and found.size else None,
    )
