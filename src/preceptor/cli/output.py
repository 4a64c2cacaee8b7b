"""Tables of the command evaluate, and a running study."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from preceptor.metrics.operating_points import TERMS, Field, Rate, Terms, roc_rates, threshold_rates
from preceptor.metrics.scores import class_auc, deployed_scores, positive_log_odds
from preceptor.utils.text import DASH, duration, print_table, threshold_text

if TYPE_CHECKING:
    from preceptor.execution.status import Status, StudyStatus

_FIGURES = {
    "auc": "AUC",
    "eer": "EER",
    "accuracy": "accuracy",
    "average_precision": "AP",
    "brier": "Brier",
}


def print_figures(table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Print metrics by set and source as returned by `figures`, and the AUC of each class."""
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
    """Print error rates at the threshold that a rule fixed, and points on the ROC curves.

    Without a threshold, only the points on the ROC curve of each set are printed.
    """
    terms = TERMS[field]
    fixed, points = [], []
    for name, part in frame.groupby("split", sort=False):
        truth, sources = (part["label"] == positive).to_numpy(), part["source"].to_numpy(object)
        if threshold is not None:
            rates = threshold_rates(truth, deployed_scores(part, positive), sources, threshold)
            fixed += _lines(str(name), rates, terms)
        rates = roc_rates(truth, positive_log_odds(part, classes, positive), sources)
        points += _lines(str(name), rates, terms)
    if threshold is not None:
        _show(
            ["set", f"at the fixed threshold {threshold_text(threshold)}", "source", "value"],
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


def _lines(name: str, rates: Sequence[Rate], terms: Terms) -> list[list[str]]:
    """Cells set, error rate, source and value; rates by source only if there are several."""
    several = sum(rate.measure == "apcer" for rate in rates) > 1
    lines = []
    for rate in rates:
        if rate.measure == "apcer" and not several:
            continue
        word = getattr(terms, rate.measure)
        if rate.measure == "worst_apcer" and not several:
            word = terms.apcer
        limit = {"tdr": terms.fdr, "bpcer": terms.worst_apcer}.get(rate.measure)
        if limit is not None and not math.isnan(rate.at):
            word = f"{word} at {limit} ≤ {rate.at:.3g}"
        source = rate.source or "unnamed" if rate.measure == "apcer" else rate.source
        lines.append([name, word, source, rate.note or _number(rate.value)])
    return lines


def print_comparison(table: pd.DataFrame, names: tuple[str, str]) -> None:
    """Print DeLong's test of two models as returned by `compare_sets`, one line per set."""
    lines = [
        [
            row["set"],
            f"{row['images']:,}",
            f"{row['groups']:,}" if row["groups"] else DASH,
            _number(row["auc_a"]),
            _number(row["auc_b"]),
            _number(row["difference"], "+.3f"),
            DASH if math.isnan(row["low"]) else f"[{row['low']:+.3f}, {row['high']:+.3f}]",
            "<0.0001" if row["p"] < 1e-4 else _number(row["p"], ".4f"),
        ]
        for row in table.to_dict("records")
    ]
    unit, grouped = "images, which are treated as independent", table["groups"] > 0
    if grouped.any():
        unit = "groups: images of one group are treated as dependent (Obuchowski 1997)"
        if not grouped.all():
            unit += "; in sets without groups, images are treated as independent"
    each = " One test per set; p is not adjusted for multiple comparisons." * (len(table) > 1)
    _show(
        ["set", "images", "groups", "AUC A", "AUC B", "A − B", "95 % interval", "p"],
        lines,
        f"A: {names[0]}\nB: {names[1]}\nDeLong's test over {unit}.{each} The test is about these "
        "two models on other images of the same kind. It does not include the variation over "
        "trainings; to compare methods, run a study.",
    )


def _number(value: float, form: str = ".3f") -> str:
    return f"{value:{form}}" if math.isfinite(value) else DASH


def _show(header: Sequence[str], lines: Sequence[Sequence[str]], caption: str = "") -> None:
    console = Console()
    print_table(header, lines, console)
    if caption:
        console.print(caption, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def live(
    board: StudyStatus, console: Console, *, lines: bool = True
) -> Iterator[Callable[[str], None]]:
    """Show a study on a terminal while it runs; yields the function that prints lines above it."""
    with Live(
        get_renderable=lambda: render(board.status),
        console=console,
        refresh_per_second=2,
        transient=True,
    ) as shown:
        show = partial(shown.console.print, markup=False, highlight=False)
        yield show if lines else lambda _: None


def render(status: Status, now: float | None = None) -> RenderableType:
    """Progress bar, time left, running steps and failures; `now` in seconds since the epoch."""
    now = time.time() if now is None else now
    left = ""
    if status.left is not None and status.done < status.total:
        left = f"about {duration(status.left)} left"
    bar = ProgressBar(total=max(status.total, 1), completed=status.done, width=30)
    head = Table.grid(padding=(0, 1))
    head.add_row(f"{status.done} of {status.total} steps", bar, left)
    steps = Table(box=None, pad_edge=False, show_header=False)
    cluster = any(one.where for one in status.running)
    steps.add_column(no_wrap=True, overflow="ellipsis", max_width=56)
    steps.add_column(justify="right", no_wrap=True)
    steps.add_column(no_wrap=True, overflow="ellipsis")
    if cluster:
        steps.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    for one in status.running:
        took = "waits" if cluster and not one.where else f"{now - one.since:.0f} s"
        machine = [Text(one.where)] if cluster else []
        steps.add_row(Text(one.title), took, Text(one.line), *machine)
    failures = list(status.failed.values())
    lines = [Text(f"failed: {one.title}: {one.reason}", style="red") for one in failures[:5]]
    more = [Text(f"and {len(failures) - 5} more")] if failures[5:] else []
    return Group(head, steps, *lines, *more)


def print_status(status: Status, held: bool, console: Console) -> None:
    """Print the status of a study from another shell."""
    age = time.time() - status.updated
    if held:
        where = f"running on {status.host}, process {status.pid}; last update {duration(age)} ago"
    elif status.done >= status.total and not status.failed:
        where = "finished"
    else:
        status.running = []  # running steps ended with the process
        where = "not running; repeat the command to resume"
    console.print(where, markup=False, highlight=False)
    console.print(render(status))
