"""Tables of results for the page, Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import pandas as pd

from preceptor.metrics.operating_points import APCERS, FDRS, TERMS, TOO_SMALL, Terms, rule_rate
from preceptor.metrics.paired_tests import mean_std
from preceptor.metrics.scores import ALL_SOURCES, class_auc
from preceptor.metrics.split_names import split_kind
from preceptor.report.blocks import (
    Cell,
    Line,
    Table,
    common_seeds_text,
    mean_std_text,
    short,
)
from preceptor.report.words import RUNGS
from preceptor.results.budgets import LINES
from preceptor.results.comparisons import BY_TEACHER, Reproduction
from preceptor.results.domain import Results
from preceptor.results.ladder import Ladder, Rung
from preceptor.results.record import (
    OVERALL,
    Row,
    records,
    select_arm,
)
from preceptor.study.config import PAPER_ALPHA, StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm
from preceptor.utils.text import DASH, interval, number, p_value, percent

_QUESTIONS = {
    "RQ1": "human-guided minus data-driven",
    "saliency": "RISE maps minus CAMs",
    "RQ2": "against the baselines",
    "RQ3": f"against Baseline 1 at α {PAPER_ALPHA:g}",
    "overall": "the mean over backbones, seed by seed",
    "control": "against the controls",
    "detector": "against the mapper as a detector",
    "ceiling": "against the ceiling",
    "start": "all from the mapper's weights",
}


def _whole(table: pd.DataFrame, evaluation: str) -> pd.DataFrame:
    """Rows of a table on a whole evaluation set."""
    return table[(table["set"] == evaluation) & (table["source"] == ALL_SOURCES)]


def _arms(results: Results, table: pd.DataFrame, backbone: str) -> Iterator[tuple[Row, Any]]:
    """Rows of the main table with their part of a table by run, where there is one."""
    for row in results.rows:
        if backbone in row.arms and len(part := select_arm(table, row.arms[backbone])):
            yield row, part


def set_table(plan: Plan, results: Results, evaluation: str) -> Table | None:
    """Mean ± std of the AUC on one whole set: rows are arms, columns backbones and "overall"."""
    table = _whole(results.table, evaluation)
    if table.empty:
        return None
    known, study = set(table["backbone"]), plan.protocol.study
    # A mapper that is used as a detector may have a backbone that no Student has.
    order = dict.fromkeys([*study.students, *study.teachers, OVERALL])
    columns = [name for name in order if name in known]
    ranked = table[[results.may_be_best(key, evaluation) for key in table["key"]]]
    best = ranked.groupby("backbone")["mean"].max()

    def cell(row: Row, column: str, one: dict[str, Any] | None) -> Cell:
        if one is None:
            return Cell()
        notes = [_setting_note(row, row.arms[column]) if column in row.arms else ""]
        if one["n"] != len(plan.seeds):
            notes.append(f"{one['n']} of {len(plan.seeds)} seeds")
        if results.is_trained_on(row.key, evaluation):
            notes.append("trained on this set")
        is_best = results.may_be_best(row.key, evaluation) and one["mean"] == best[column]
        return Cell(_spread(one), ", ".join(filter(None, notes)), is_best)

    lines = []
    for row in results.rows:
        mine = {one["backbone"]: one for one in records(table[table["key"] == row.key])}
        if mine:
            cells = [cell(row, column, mine.get(column)) for column in columns]
            lines.append(Line(row.title, cells, row.key == "student"))
    images = int(table["images"].iloc[0])
    what = f"AUC of {results.positive}" if results.positive is not None else "one-vs-rest AUC"
    caption = f"{evaluation}: {what}, mean ± standard deviation over seeds ({images:,} images)."
    return Table(caption, "", columns, lines)


def _spread(one: dict[str, Any], prefix: str = "") -> str:
    mean, std = ("mean", "std") if not prefix else (prefix, f"{prefix}_std")
    return mean_std_text(one[mean], one[std])


def _setting_note(row: Row, arm: Arm) -> str:
    """Selected setting of an arm; "" if nothing was selected."""
    if arm.alpha == 1 or row.key == "baseline1_paper":
        return arm.guidance
    return str(arm.setting)


def class_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """One-vs-rest AUC of each class, for more than two classes."""
    if results.positive is not None or results.figures.empty or len(results.classes) < 3:
        return None
    arms = list(_arms(results, _whole(results.figures, evaluation), backbone))
    if not arms:
        return None
    lines = [
        Line(name, [Cell(mean_std_text(*mean_std(part[class_auc(name)]))) for _, part in arms])
        for name in results.classes
    ]
    caption = f"{backbone} on {evaluation}: one-vs-rest AUC of each class, mean ± std."
    return Table(caption, "Class", [short(row.key) for row, _ in arms], lines)


def source_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """AUC by source: rows are sources, columns arms."""
    table = results.table
    table = table[(table["set"] == evaluation) & (table["backbone"] == backbone)]
    keys = [row.key for row in results.rows if (table["key"] == row.key).any()]
    lines = []
    for source in sorted(set(table["source"]) - {ALL_SOURCES}):
        here = table[table["source"] == source]
        if not here["mean"].notna().any():
            continue  # a source with negatives only has no AUC
        best = here[[results.may_be_best(key, evaluation) for key in here["key"]]]["mean"].max()
        mine = {one["key"]: one for one in records(here)}
        cells = [
            Cell(
                _spread(mine[key]),
                best=results.may_be_best(key, evaluation) and mine[key]["mean"] == best,
            )
            if key in mine
            else Cell()
            for key in keys
        ]
        lines.append(Line(f"{source} ({int(here['images'].iloc[0]):,})", cells))
    if not lines:
        return None
    caption = f"{backbone} on {evaluation}: AUC by source (images of the source in brackets)."
    return Table(caption, "Source", [short(key) for key in keys], lines, sortable=True)


def comparison_tables(results: Results, questions: Sequence[str]) -> list[tuple[str, Table]]:
    """Tables of paired comparisons by question."""
    tables = []
    for question in questions if len(results.comparisons) else ():
        here = results.comparisons[results.comparisons["question"] == question]
        if here.empty:
            continue
        family, by_teacher = question == "RQ2", question in BY_TEACHER
        columns = ["Difference", "95 % interval, seeds", "p (sign-flip)"]
        columns += ["p (Holm)"] if family else []
        columns += ["95 %, seeds × images", "Seeds for ±0.01", "By seed"]
        lines = []
        for row in records(here):
            heading = f"{row['backbone']}: {short(row['key_b'])}"
            if by_teacher:
                heading = f"{row['teacher_a']} − {row['teacher_b']}"
            cells = [
                Cell(number(row["mean"], sign=True), "" if row["n"] > 1 else "one seed"),
                Cell(interval(row["low"], row["high"])),
                _p_cell(row),
            ]
            cells += [Cell(p_value(row["p_holm"]))] if family else []
            expected, cautious = row["seeds_needed"], row["seeds_cautious"]
            more = f"up to {cautious:,.0f}" if cautious > expected else ""
            cells += [
                Cell(interval(row["image_low"], row["image_high"])),
                Cell(f"{expected:,.0f}", more) if math.isfinite(expected) else Cell(),
                Cell(", ".join(number(value, sign=True) for value in row["difference_by_seed"])),
            ]
            lines.append(Line(heading, cells))
        whose, corner = "Student minus the model of the row", "Backbone and model"
        if by_teacher:
            whose = f"Probe Students ({here['backbone'].iloc[0]}) by their Teacher"
            corner = "Teachers"
        kind = "tested family" if family else "descriptive"
        caption = f"{whose} on {results.primary}, {_QUESTIONS[question]} ({kind})."
        tables.append((question, Table(caption, corner, columns, lines)))
    return tables


def _p_cell(row: dict[str, Any]) -> Cell:
    return Cell(p_value(row["p"]), f"floor {p_value(row['p_floor'])}")


def share_table(results: Results) -> Table | None:
    """Share of the way from the better baseline to the ceiling."""
    if results.shares.empty:
        return None
    lines = []
    for row in records(results.shares):
        known = row["share"] is not None and math.isfinite(row["share"])
        share = percent(row["share"]) if known else DASH
        spread = f"{percent(row['low'])} to {percent(row['high'])}" if known else DASH
        cells = [Cell(text) for text in (short(row["baseline"]), share, spread, row["reason"])]
        lines.append(Line(f"{row['backbone']}: {short(row['key'])}", cells, strong=True))
    columns = ["Better baseline", "Share of the way", "95 % interval", "Reason"]
    if not any(results.shares["reason"]):
        columns.pop()
        lines = [replace(line, cells=line.cells[:-1]) for line in lines]
    caption = (
        "(Student − better baseline) ÷ (ceiling − better baseline), of AUC on "
        f"{results.primary}; given only if the interval of the denominator lies above 0."
    )
    return Table(caption, "Backbone", columns, lines)


def teacher_table(plan: Plan, results: Results) -> Table | None:
    """Candidates of stage 1 with the values used by the selection."""
    choice = plan.teacher_choice
    if results.teachers.empty or choice is None:
        return None
    lines = []
    for row in records(results.teachers):
        difference = interval(row["low"], row["high"]) if row["low"] or row["high"] else "the best"
        won = row["name"] == choice.winner
        cells = [
            Cell(number(row["value"]), row["worst_set"]),
            Cell(difference),
            Cell("yes" if row["tied"] else "no"),
            Cell(number(row["agreement"], 2)),
            Cell("selected" if won else ""),
        ]
        lines.append(Line(row["name"], cells, won))
    columns = ["Validation AUC of its Students", "Difference to the best", "Tied with the best"]
    columns += ["Agreement with human maps (r)", "Selection"]
    caption = "Teachers in stage 1: AUC of their probe Students on the worst validation set."
    return Table(caption, "Teacher", columns, lines)


def rung_table(found: Sequence[Ladder]) -> Table | None:
    """Table of ladders on one evaluation set: a row per rung, with its gain over the one below."""
    if not found:
        return None
    lines = []
    for ladder in found:
        for rung in ladder.rungs:
            heading = RUNGS[rung.name][0]
            if len(found) > 1:
                name = heading if rung.name == "teacher" else heading.lower()
                heading = f"{ladder.backbone}: {name}"
            heading += f": {short(rung.key)}" if rung.name == "any" else ""
            lines.append(Line(heading, _rung_cells(rung), rung.name == "teacher"))
    columns = ["AUC", "95 % interval of the AUC", "Gain over the previous row"]
    columns += ["95 % interval of the gain", "p"]
    caption = (
        f"{found[0].set}: AUC by the maps that guide, mean ± standard deviation over seeds; gains "
        "are paired by seed, p is not corrected."
    )
    return Table(caption, "Maps", columns, lines)


def _rung_cells(rung: Rung) -> list[Cell]:
    plain = rung.name == "none" and not rung.setting.guidance
    own = [
        Cell(mean_std_text(rung.mean, rung.std), "" if plain else str(rung.setting)),
        Cell(interval(rung.low, rung.high).replace("+", "")),
    ]
    if rung.gain is None:
        return [*own, Cell(), Cell(), Cell()]
    gain = rung.gain.paired
    note = f"{gain.n} of {rung.n} seeds" if gain.n != rung.n else ""
    cells = [Cell(number(gain.mean, sign=True), note), Cell(interval(gain.low, gain.high))]
    return [*own, *cells, _p_cell(asdict(gain))]


def domain_table(domains: pd.DataFrame) -> Table | None:
    """Table on RQ4: Student and both baselines, one row per domain (and backbone).

    Which baseline is the stronger one is open where one of them has no results yet.
    """
    if domains.empty:
        return None
    lines, baselines = [], ("baseline1", "baseline2")
    several = domains["backbone"].nunique() > 1
    for (domain, backbone), part in domains.groupby(["domain", "backbone"], sort=False):
        rows = {row["key_b"]: row for row in records(part)}
        hardest = min(rows.values(), key=lambda row: row["mean"])
        cells = [Cell(f"{hardest['primary']}", f"{hardest['images']:,} images")]
        cells += [Cell(_spread(rows[k], "baseline")) if k in rows else Cell() for k in baselines]
        cells.append(Cell(_spread(hardest, "student")))
        if len(rows) == len(baselines):
            larger = max(row["p_holm"] for row in rows.values())
            own = (hardest[name] for name in ("mean", "student", "baseline", "n"))
            cells += [
                Cell(number(hardest["mean"], sign=True), common_seeds_text(*own)),
                Cell(interval(hardest["low"], hardest["high"])),
                Cell(interval(hardest["image_low"], hardest["image_high"])),
                _p_cell(hardest | {"p": larger}),
            ]
        else:
            cells += [Cell()] * 4
        lines.append(Line(f"{domain}: {backbone}" if several else str(domain), cells))
    columns = ["Set", *map(short, baselines), "Student", "Student − stronger baseline"]
    columns += ["95 % interval, seeds", "95 %, seeds × images", "larger p (Holm, all domains)"]
    return Table("AUC by domain, mean ± std over seeds.", "Domain", columns, lines)


def budget_table(study: StudyConfig, results: Results, backbone: str) -> Table | None:
    """Results by number of annotated images, with the gain of the step to the next number."""
    curve = results.budget[results.budget["backbone"] == backbone]
    if curve.empty:
        return None
    timed = curve["minutes"].notna().all()
    shown = {line: name for line, name in LINES.items() if line in set(curve["line"])}
    gains = {
        step["size"]: step
        for step in records(results.budget_steps)
        if (step["backbone"], step["line"]) == (backbone, "student")
    }
    lines = []
    for size in study.budgets:
        here = {row["line"]: row for row in records(curve[curve["size"] == size])}
        if not here:
            continue
        cells = [Cell(number(next(iter(here.values()))["minutes"], 1))] if timed else []
        for line in shown:
            point, cell = here.get(line), Cell()
            if point is not None:
                spread = f"{number(point['low'])} to {number(point['high'])}"
                cell = Cell(number(point["mean"]), spread if math.isfinite(point["low"]) else "")
            cells.append(cell)
        step, cell = gains.get(size), Cell()
        if step is not None:
            cell = Cell(number(step["mean"], sign=True), interval(step["low"], step["high"]))
        lines.append(Line(f"{size:,}", [*cells, cell]))
    columns = ["Minutes"] if timed else []
    columns += [*shown.values(), "Student's gain by the next step"]
    caption = (
        f"{backbone}: AUC on {results.primary} by the number of annotated images, mean and 95 % "
        "interval over seeds; the images are a new draw for every seed."
    )
    return Table(caption, "Annotated", columns, lines)


SetAndBackbone = tuple[str, str]


@dataclass(frozen=True)
class DomainTables:
    """Tables of the page, table.md, summary.md and the model card; empty ones are absent."""

    order: list[str]  # evaluation sets, the primary one first
    sets: dict[str, Table]  # main table by evaluation set
    sources: dict[SetAndBackbone, Table]
    fixed_rates: dict[SetAndBackbone, Table]  # at the threshold fixed on validation
    roc_rates: dict[SetAndBackbone, Table]  # on the test ROC curve
    budgets: dict[str, Table]  # by backbone

    @property
    def tests(self) -> list[str]:
        """Test sets, the primary one first."""
        return [name for name in self.order if split_kind(name) == "test"]


def domain_tables(plan: Plan, results: Results) -> DomainTables:
    """Tables of a domain."""
    study, order = plan.protocol.study, list(results.sets)
    tests = [name for name in order if split_kind(name) == "test"]

    def each(
        sets: Iterable[str], make: Callable[[str, str], Table | None]
    ) -> dict[SetAndBackbone, Table]:
        pairs = product(sets, study.students)
        return {pair: table for pair in pairs if (table := make(*pair)) is not None}

    made = {name: set_table(plan, results, name) for name in order}
    budgets = {name: budget_table(study, results, name) for name in study.students}
    return DomainTables(
        order=order,
        sets={name: table for name, table in made.items() if table is not None},
        sources=each(order, lambda one, backbone: source_table(results, one, backbone)),
        fixed_rates=each(tests, lambda one, name: fixed_rate_table(study, results, one, name)),
        roc_rates=each(tests, lambda one, name: roc_rate_table(study, results, one, name)),
        budgets={name: table for name, table in budgets.items() if table is not None},
    )


def published_table(results: Results, found: Sequence[Reproduction]) -> Table:
    """Published results beside those of the study."""
    lines = []
    for one in found:
        cells = [
            Cell(mean_std_text(*one.published)),
            Cell(mean_std_text(one.mean, one.std), f"{one.n} seed{'s' if one.n != 1 else ''}"),
            Cell(number(one.difference, sign=True)),
            Cell(interval(one.low, one.high)),
        ]
        lines.append(Line(f"{one.backbone}: {short(one.key)}", cells, one.key == "student"))
    caption = (
        f"AUC on {results.primary}, mean ± standard deviation over trainings. The interval is a t "
        "interval over the seeds of this study; the published mean is treated as exact, because "
        "its number of trainings is not known. An interval with its error would be wider."
    )
    columns = ["Published", "This study", "This study − published", "95 % interval"]
    return Table(caption, "Row", columns, lines)


# Error rates and metrics other than AUC


def roc_rate_table(
    study: StudyConfig, results: Results, evaluation: str, backbone: str
) -> Table | None:
    """Error rates on the test ROC curve, with thresholds chosen on the test scores."""
    terms = TERMS[study.terms]
    columns: list[tuple[str, str, float]] = [(terms.eer, "eer", math.nan)]
    columns += [(f"{terms.tdr} at {terms.fdr} {_share(rate)}", "tdr", rate) for rate in FDRS]
    columns += [
        (f"{terms.bpcer} at {terms.worst_apcer} ≤ {_share(rate)}", "bpcer", rate) for rate in APCERS
    ]
    lines = []
    for row, mine in _rates(results, evaluation, backbone, "roc"):
        cells = [_rate_cell(mine, measure, at) for _, measure, at in columns]
        lines.append(Line(row.title, cells, row.key == "student"))
    if not lines:
        return None
    caption = (
        f"{backbone} on {evaluation}: error rates on the test ROC curve, mean ± std over seeds. "
        "The thresholds are chosen on the test set and are not achievable in deployment."
    )
    rates = results.rates[(results.rates["set"] == evaluation) & (results.rates["note"] != "")]
    small = []  # operating points that are finer than the set
    for name, measure, at in columns:
        own = rates[(rates["measure"] == measure) & (rates["at"] == at)]
        if len(own):
            small.append(f"{name}: {str(own['note'].max()).removeprefix(f'{TOO_SMALL}: ')}")
    caption += f" Too small a set for {'; '.join(small)}." if small else ""
    return Table(caption, "", [name for name, _, _ in columns], lines)


def fixed_rate_table(
    study: StudyConfig, results: Results, evaluation: str, backbone: str
) -> Table | None:
    """Error rates at the threshold of each model that was fixed on its validation scores."""
    terms, here = TERMS[study.terms], results.rates
    here = here[(here["set"] == evaluation) & (here["measure"] == "apcer")]
    sources = sorted(source for source in here["source"].unique() if source)
    columns = [(f"{terms.apcer}: {name}", "apcer", name) for name in sources]
    columns += [
        (terms.worst_apcer if sources else terms.apcer, "worst_apcer", ""),
        (terms.bpcer, "bpcer", ""),
        (terms.acer, "acer", ""),
    ]
    rows = list(_rates(results, evaluation, backbone, "fixed"))
    if not rows:
        return None
    lines = [
        Line(
            row.title,
            [_rate_cell(mine, measure, math.nan, source) for _, measure, source in columns],
            row.key == "student",
        )
        for row, mine in rows
    ]
    caption = (
        f"{backbone} on {evaluation}: error rates at the threshold fixed on validation "
        f"({rule_words(study.threshold, terms)}), mean ± std over seeds; "
        f"{terms.acer} is the mean of the previous two."
    )
    if results.dfr_set is not None:
        caption += (
            f" “{short('dfr')}” has no such threshold, since it is trained on {results.dfr_set}, "
            "which is one of the sets that fix thresholds."
        )
    fixed = {row.key: len({rate.seed for rate in mine}) for row, mine in rows}
    without = []
    for row, part in _arms(results, _whole(results.figures, evaluation), backbone):
        models = part["seed"].nunique()
        if row.key != "dfr" and (count := models - fixed.get(row.key, 0)):
            without.append(f"{count} of {models} models of “{short(row.key)}”")
    if without:
        caption += (
            f" Without such a threshold, and left out: {', '.join(without)}; there are too few "
            "validation negatives, or too many of them have the float32 score 1."
        )
    return Table(caption, "", [name for name, _, _ in columns], lines)


def rule_words(rule: str, terms: Terms) -> str:
    """Threshold rule in words."""
    rate = rule_rate(rule)
    return terms.eer if rate is None else f"{terms.fdr} {_share(rate)}"


def _share(rate: float) -> str:
    return f"{100 * rate:g} %"


class _Rate(NamedTuple):
    """One row of the table of rates; tuples, since each cell of a table searches them."""

    measure: str
    at: float
    source: str
    seed: int
    value: float
    note: str


def _rates(
    results: Results, evaluation: str, backbone: str, kind: str
) -> Iterator[tuple[Row, list[_Rate]]]:
    """Rows of the main table with their rates."""
    here = results.rates
    here = here[(here["set"] == evaluation) & (here["kind"] == kind)]
    for row, mine in _arms(results, here, backbone):
        columns = (mine[name].tolist() for name in _Rate._fields)
        yield row, [_Rate(*values) for values in zip(*columns, strict=True)]


def _rate_cell(mine: list[_Rate], measure: str, at: float, source: str | None = None) -> Cell:
    own: dict[int, _Rate] = {}  # a run with two roles has two rows
    for rate in mine:
        same = rate.measure == measure and (not math.isfinite(at) or rate.at == at)
        if same and (measure != "apcer" or rate.source == source):
            own.setdefault(rate.seed, rate)
    if not own:
        return Cell()
    if any(rate.note != "" for rate in own.values()):
        return Cell(TOO_SMALL)
    return Cell(mean_std_text(*mean_std([rate.value for rate in own.values()])))


def further_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """AUC, average precision, accuracy, Brier score and EER of each row on a whole set."""
    names = {
        "auc": "AUC",
        "average_precision": "Average precision",
        "accuracy": "Accuracy",
        "brier": "Brier score",
        "eer": "EER",
    }
    if results.positive is None:
        names.pop("eer")
    lines = []
    for row, part in _arms(results, _whole(results.figures, evaluation), backbone):
        mine = part.drop_duplicates("seed")
        cells = [Cell(mean_std_text(*mean_std(mine[name]))) for name in names]
        lines.append(Line(row.title, cells, row.key == "student"))
    if not lines:
        return None
    caption = (
        f"{backbone} on {evaluation}: further metrics, mean ± std over seeds. Accuracy is that of "
        "the most probable class; for Brier score and EER, lower is better."
    )
    return Table(caption, "", list(names.values()), lines)
