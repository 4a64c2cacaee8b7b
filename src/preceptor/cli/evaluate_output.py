"""Output of `preceptor evaluate`: metrics, error rates and the comparison of two models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from rich.console import Console

from preceptor.metrics.operating_points import (
    TERMS,
    Field,
    Rate,
    Terms,
    roc_rates,
    threshold_rates,
)
from preceptor.metrics.scores import class_auc, deployed_scores, positive_log_odds
from preceptor.utils.text import print_table

_FIGURES = {
    "auc": "AUC",
    "eer": "EER",
    "accuracy": "accuracy",
    "average_precision": "AP",
    "brier": "Brier",
}


def print_figures(table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Print metrics by set and source, and the AUC of each class.

    Args:
        table: Metrics as returned by `figures`.
        classes: Class names in score order.
    """
    lines = [
        [row["set"], row["source"] or "all", f"{row['images']:,}", f"{row['positives']:,}"]
        + [_number(row[key]) for key in _FIGURES]
        for row in table.to_dict("records")
    ]
    _show(["set", "source", "images", "positives", *_FIGURES.values()], lines)
    whole = table[table["source"] == ""]
    aucs = {name: class_auc(name) for name in classes if class_auc(name) in table}
    if aucs:
        lines = [[name, *map(_number, whole[column])] for name, column in aucs.items()]
        _show(["one-vs-rest AUC", *whole["set"]], lines)


def print_rates(
    frame: pd.DataFrame,
    classes: Sequence[str],
    positive: str,
    rule: str,
    threshold: float | None,
    field: Field,
) -> None:
    """Print error rates at a fixed threshold, and operating points on the ROC curve of each set.

    Args:
        frame: Score table.
        classes: Class names.
        positive: Positive class.
        rule: Rule that fixed the threshold.
        threshold: Fixed threshold; None = the model has none, so that only operating points are
            printed.
        field: Field whose names of the error rates are used.
    """
    terms = TERMS[field]
    fixed, points = [], []
    for name, part in frame.groupby("split", sort=False):
        truth, sources = (part["label"] == positive).to_numpy(), part["source"].to_numpy(object)
        if threshold is not None:
            found = threshold_rates(truth, deployed_scores(part, positive), sources, threshold)
            fixed += _lines(str(name), found, terms)
        found = roc_rates(truth, positive_log_odds(part, classes, positive), sources)
        points += _lines(str(name), found, terms)
    if threshold is not None:
        _show(
            ["set", f"at the fixed threshold {threshold:.4g}", "source", "value"],
            fixed,
            f"Threshold by the rule {rule} on the validation images of the model's training; "
            f"images with a score at or above it are classified as {terms.positive}.",
        )
    _show(
        ["set", "on the ROC curve of the set", "source", "value"],
        points,
        "Operating points on the ROC curve of a set describe its scores. They cannot be achieved "
        "in use, where the threshold is fixed in advance.",
    )


def print_comparison(table: pd.DataFrame, names: tuple[str, str]) -> None:
    """Print DeLong's test of two models, with one line per evaluation set.

    Args:
        table: Comparison as returned by `compare_sets`.
        names: Names of models a and b.
    """
    lines = []
    for row in table.to_dict("records"):
        known = not math.isnan(row["low"])
        lines.append(
            [
                row["set"],
                f"{row['images']:,}",
                f"{row['groups']:,}" if row["groups"] else "–",
                _number(row["auc_a"]),
                _number(row["auc_b"]),
                _number(row["difference"], "+.3f"),
                f"[{row['low']:+.3f}, {row['high']:+.3f}]" if known else "–",
                "<0.0001" if row["p"] < 1e-4 else _number(row["p"], ".4f"),
            ]
        )
    grouped = table["groups"] > 0
    _show(
        ["set", "images", "groups", "AUC A", "AUC B", "A − B", "95 % interval", "p"],
        lines,
        f"A: {names[0]}\nB: {names[1]}\n"
        + _what_was_tested(bool(grouped.any()), bool(grouped.all()), len(table)),
    )


def _what_was_tested(some: bool, every: bool, sets: int) -> str:
    """Caption of a comparison."""
    unit = "images, which are treated as independent"
    if some:
        rest = "" if every else "; in sets without groups, images are treated as independent"
        unit = f"groups: images of one group are treated as dependent (Obuchowski 1997){rest}"
    each = " One test per set; p is not adjusted for multiple comparisons." if sets > 1 else ""
    return (
        f"DeLong's test over {unit}.{each} The test is about these two models on other images of "
        "the same kind. It does not include the variation over trainings; to compare methods, run "
        "a study."
    )


def _lines(name: str, rates: Sequence[Rate], terms: Terms) -> list[list[str]]:
    """Cells set, error rate, source and value; rates by source only if there are several."""
    several = sum(rate.measure == "apcer" for rate in rates) > 1
    found = []
    for rate in rates:
        if rate.measure == "apcer" and not several:
            continue
        word = getattr(terms, rate.measure)
        if rate.measure == "worst_apcer" and not several:
            word = terms.apcer
        if rate.measure == "tdr":
            word = f"{word} at {terms.fdr} ≤ {rate.at:.3g}"
        if rate.measure == "bpcer" and not math.isnan(rate.at):
            word = f"{word} at {terms.worst_apcer} ≤ {rate.at:.3g}"
        source = rate.source or "unnamed" if rate.measure == "apcer" else rate.source
        found.append([name, word, source, rate.note or _number(rate.value)])
    return found


def _number(value: float, form: str = ".3f") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def _show(header: Sequence[str], lines: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table with a caption."""
    console = Console()
    print_table(header, lines, console)
    if caption:
        console.print(caption, markup=False, highlight=False, soft_wrap=True)
