"""Tables of error rates and of metrics other than AUC, one row per arm of the study."""

from __future__ import annotations

import math
from typing import NamedTuple

from preceptor.metrics.operating_points import APCERS, FDRS, TERMS, TOO_SMALL, Terms, rule_rate
from preceptor.metrics.paired_tests import mean_std
from preceptor.metrics.scores import ALL_SOURCES
from preceptor.report.cells import Cell, Line, Table, mean_std_text, short
from preceptor.results.domain import Results
from preceptor.results.rows import select_arm
from preceptor.study.config import StudyConfig


def roc_rate_table(
    study: StudyConfig, results: Results, evaluation: str, backbone: str
) -> Table | None:
    """Error rates on the test ROC curve, with thresholds chosen on the test scores."""
    terms = TERMS[study.terms]
    columns: list[tuple[str, str, float]] = [(terms.eer, "eer", math.nan)]
    columns += [(f"{terms.tdr} at {terms.fdr} {_share(rate)}", "tdr", rate) for rate in FDRS]
    columns += [(_bpcer_at(terms, rate), "bpcer", rate) for rate in APCERS]
    lines = []
    for key, title, mine in _by_row(results, evaluation, backbone, "roc"):
        cells = [_rate_cell(mine, measure, at) for _, measure, at in columns]
        lines.append(Line(title, cells, key == "student"))
    if not lines:
        return None
    caption = (
        f"{backbone} on {evaluation}: error rates on the test ROC curve, mean ± std over seeds. "
        "The thresholds are chosen on the test set and are not achievable in deployment."
    ) + _why(columns, results, evaluation)
    return Table(caption, "", [name for name, _, _ in columns], lines)


def fixed_rate_table(
    study: StudyConfig, results: Results, evaluation: str, backbone: str
) -> Table | None:
    """Error rates at the threshold of each model that was fixed on its validation scores.

    Both are those of the model in use, whose scores are float32.
    """
    terms = TERMS[study.terms]
    if results.rates.empty:
        return None
    here = results.rates
    here = here[(here["set"] == evaluation) & (here["measure"] == "apcer")]
    sources = sorted(source for source in here["source"].unique() if source)
    columns = [(f"{terms.apcer}: {name}", "apcer", name) for name in sources]
    columns += [
        (terms.worst_apcer if sources else terms.apcer, "worst_apcer", ""),
        (terms.bpcer, "bpcer", ""),
        (terms.acer, "acer", ""),
    ]
    lines = []
    rows = _by_row(results, evaluation, backbone, "fixed")
    for key, title, mine in rows:
        cells = [_rate_cell(mine, measure, math.nan, source) for _, measure, source in columns]
        lines.append(Line(title, cells, key == "student"))
    if not lines:
        return None
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
    with_one = {key: len({rate.seed for rate in mine}) for key, _, mine in rows}
    caption += _without_threshold(results, evaluation, backbone, with_one)
    return Table(caption, "", [name for name, _, _ in columns], lines)


def _without_threshold(
    results: Results, evaluation: str, backbone: str, with_one: dict[str, int]
) -> str:
    """Sentence on the models of each row that have no such threshold."""
    tested = results.figures
    tested = tested[(tested["set"] == evaluation) & (tested["source"] == ALL_SOURCES)]
    said = []
    for row in results.rows:
        if backbone in row.arms and row.key != "dfr":
            models = select_arm(tested, row.arms[backbone])["seed"].nunique()
            if without := models - with_one.get(row.key, 0):
                said.append(f"{without} of {models} models of “{short(row.key)}”")
    if not said:
        return ""
    return (
        f" Without such a threshold, and left out: {', '.join(said)}; there are too few validation "
        "negatives, or too many of them have the float32 score 1."
    )


def rule_words(rule: str, terms: Terms) -> str:
    """Threshold rule in words.

    Example:
        >>> rule_words("fdr=0.01", TERMS["pad"])
        'FDR 1 %'
    """
    rate = rule_rate(rule)
    return terms.eer if rate is None else f"{terms.fdr} {_share(rate)}"


def _bpcer_at(terms: Terms, rate: float) -> str:
    """Share of the negatives at a share of missed positives, which is that of the worst source."""
    return f"{terms.bpcer} at {terms.worst_apcer} ≤ {_share(rate)}"


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


def _by_row(
    results: Results, evaluation: str, backbone: str, kind: str
) -> list[tuple[str, str, list[_Rate]]]:
    """Key, title and rates of each row of the main table with rates."""
    if results.rates.empty:
        return []
    here = results.rates
    here = here[(here["set"] == evaluation) & (here["kind"] == kind)]
    found = []
    for row in results.rows:
        if backbone in row.arms:
            mine = select_arm(here, row.arms[backbone])
            if len(mine):
                columns = (mine[name].tolist() for name in _Rate._fields)
                rates = [_Rate(*values) for values in zip(*columns, strict=True)]
                found.append((row.key, row.title, rates))
    return found


def _rate_cell(mine: list[_Rate], measure: str, at: float, source: str | None = None) -> Cell:
    own: dict[int, _Rate] = {}  # a run with two roles has two rows
    for rate in mine:
        if (
            rate.measure == measure
            and (not math.isfinite(at) or rate.at == at)
            and (measure != "apcer" or rate.source == source)
        ):
            own.setdefault(rate.seed, rate)
    if not own:
        return Cell()
    if any(rate.note != "" for rate in own.values()):
        return Cell(TOO_SMALL)
    return Cell(mean_std_text(*mean_std([rate.value for rate in own.values()])))


def _why(columns: list[tuple[str, str, float]], results: Results, evaluation: str) -> str:
    """Note on operating points that are finer than the set."""
    rates = results.rates[(results.rates["set"] == evaluation) & (results.rates["note"] != "")]
    said = []
    for name, measure, at in columns:
        own = rates[(rates["measure"] == measure) & (rates["at"] == at)]
        if len(own):
            said.append(f"{name}: {str(own['note'].max()).removeprefix(f'{TOO_SMALL}: ')}")
    return f" Too small a set for {'; '.join(said)}." if said else ""


def further_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """AUC, average precision, accuracy, Brier score and EER of each row on a whole set."""
    if results.figures.empty:
        return None
    whole = results.figures
    whole = whole[(whole["set"] == evaluation) & (whole["source"] == ALL_SOURCES)]
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
    for row in results.rows:
        if backbone in row.arms:
            mine = select_arm(whole, row.arms[backbone]).drop_duplicates("seed")
            if len(mine):
                cells = [Cell(mean_std_text(*mean_std(mine[name]))) for name in names]
                lines.append(Line(row.title, cells, row.key == "student"))
    if not lines:
        return None
    caption = (
        f"{backbone} on {evaluation}: further metrics, mean ± std over seeds. Accuracy is that of "
        "the most probable class; for Brier score and EER, lower is better."
    )
    return Table(caption, "", list(names.values()), lines)
