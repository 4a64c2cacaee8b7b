"""What `preceptor evaluate` prints: figures, error rates and the comparison of two models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.evaluation.operating_points import Rate, roc_rates, threshold_rates
from preceptor.evaluation.scores import class_auc
from preceptor.evaluation.terms import TERMS, Field, Terms

_FIGURES = {
    "auc": "AUC",
    "eer": "EER",
    "accuracy": "accuracy",
    "average_precision": "AP",
    "brier": "Brier",
}


def print_figures(table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Print the figures of `evaluate`, a line a set or source, and the AUC of each class.

    Args:
        table: Table of `evaluation.scores.figures`.
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
        _show(["AUC of a class against the rest", *whole["set"]], lines)


def print_rates(
    frame: pd.DataFrame, positive: str, rule: str, threshold: float | None, field: Field
) -> None:
    """Print the errors at a fixed threshold, and the points of each set's own scores.

    Args:
        frame: A score table.
        positive: The positive class.
        rule: What the threshold was fixed by.
        threshold: The fixed threshold; None = the model has none, so that only the points are left.
        field: Whose names the errors go by.
    """
    terms = TERMS[field]
    fixed, points = [], []
    for name, part in frame.groupby("split", sort=False):
        own = (part["label"] == positive).to_numpy(), part[f"score_{positive}"].to_numpy(float)
        sources = part["source"].to_numpy(object)
        if threshold is not None:
            fixed += _lines(str(name), threshold_rates(*own, sources, threshold), terms)
        points += _lines(str(name), roc_rates(*own, sources), terms)
    if threshold is not None:
        _show(
            ["set", f"at the fixed threshold {threshold:.4g}", "source", "value"],
            fixed,
            f"The rule {rule} fixed it on the validation images of the model's training; an image "
            f"whose score is at least this is called {terms.positive}.",
        )
    _show(
        ["set", "points of the set's own scores", "source", "value"],
        points,
        "From the ROC curve of the set itself: they describe its scores. Whoever uses the model "
        "cannot place a threshold so.",
    )


def print_comparison(table: pd.DataFrame, names: tuple[str, str]) -> None:
    """Print DeLong's test of two models, a line an evaluation set.

    Args:
        table: As `compare_sets` makes it.
        names: Of models a and b.
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
    """The caption of a comparison."""
    unit = "images, each taken as independent"
    if some:
        rest = "" if every else "; where a set names none, images are taken as independent"
        unit = f"groups: images of one group count as dependent (Obuchowski 1997){rest}"
    each = " One test a set, p not adjusted for their number." if sets > 1 else ""
    return (
        f"DeLong's test over {unit}.{each} It is about these two models and other images of the "
        "same kind. What training again would give is not in it: a study compares methods."
    )


def _lines(name: str, rates: Sequence[Rate], terms: Terms) -> list[list[str]]:
    """Set, error, source and value; errors of a source only where there are several."""
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
    """Print a table, names as they are (a bracket is no markup), and what it shows below it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in header:  # a narrow screen breaks names of sets, no word of a heading
        table.add_column(escape(name), overflow="fold", min_width=max(map(len, name.split())))
    for line in lines:
        table.add_row(*(escape(str(cell)) for cell in line))
    console = Console()
    console.print(table)
    if caption:
        console.print(caption, markup=False, highlight=False, soft_wrap=True)
