"""Tables of the commands evaluate and runs, trainings and their state, a running study."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError, safe_open

from preceptor.config.files import load_config
from preceptor.errors import InputError
from preceptor.metrics.operating_points import TERMS, Field, Rate, Terms, roc_rates, threshold_rates
from preceptor.metrics.scores import class_auc, deployed_scores, positive_log_odds
from preceptor.study.config import StudyConfig
from preceptor.study.steps import PlannedRun, read_planned_runs
from preceptor.training.record import RunRecord
from preceptor.utils.process import bulk_import
from preceptor.utils.results import is_finished
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


@dataclass(frozen=True)
class Run(PlannedRun):
    """Training of a study or a store; in a store it has no roles and no domain."""

    state: Literal["finished", "begun", "waiting"] = "waiting"
    epochs: int = 0  # number of finished epochs, or the selected epoch of a finished training
    val_auc: float = math.nan
    seconds: float = math.nan  # training time in seconds; NaN if not finished


def runs_of_study(folder: Path, planned: Iterable[PlannedRun]) -> list[Run]:
    """Trainings of a study."""
    runs = load_config(folder / "study.yaml", StudyConfig).store_of(folder.absolute()) / "runs"
    return [_run(runs / one.id, one) for one in planned]


def runs_of_store(folder: Path) -> list[Run]:
    """Trainings in a store or in its folder of runs."""
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    folders = [
        one
        for one in sorted(runs.iterdir() if runs.is_dir() else [])
        if is_finished(one) or (one / "resume.safetensors").is_file()
    ]
    if not folders:
        raise InputError(f"{folder}: neither a study folder (study.yaml) nor a store of runs")
    return [_run(one, PlannedRun(one.name, (), "", math.nan, -1)) for one in folders]


def _run(folder: Path, planned: PlannedRun) -> Run:
    """Training in a folder of a store; what the plan does not know is in its record."""
    known = {one.name: getattr(planned, one.name) for one in fields(PlannedRun)}
    if not is_finished(folder):
        epochs = _epochs(folder / "resume.safetensors")
        return Run(**known, state="waiting" if epochs is None else "begun", epochs=epochs or 0)
    record = RunRecord.read(folder)
    try:
        config, aucs = record.config, [one.auc for one in record.sets.values()]
        known |= {"backbone": config["backbone"], "seed": config["seed"]}
        known["alpha"] = 1.0 if config["maps"]["kind"] == "none" else config["alpha"]
        return Run(
            **known,
            state="finished",
            epochs=record.best_epoch,
            val_auc=min(aucs, default=math.nan),
            seconds=record.seconds,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / 'run.json'}: not the record of a training; remove the folder"
        ) from error


def _epochs(file: Path) -> int | None:
    """Number of finished epochs of an interrupted training; None without a valid checkpoint."""
    try:
        with safe_open(file, "np") as opened:
            return int(json.loads(opened.metadata()["state"])["epoch"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def list_runs(folder: Path) -> list[Run]:
    """Known trainings of a study folder, or all trainings in a store."""
    if not (folder / "study.yaml").is_file():
        return runs_of_store(folder)
    planned = read_planned_runs(folder)
    if planned is None:  # the plan itself needs the images, and torch, whose import takes seconds
        with bulk_import():
            from preceptor.study_folder import reopen

        planned = reopen(folder).planned_runs()
    return runs_of_study(folder, planned)


def print_runs(runs: Sequence[Run], console: Console | None = None) -> None:
    """Print a table of runs, without columns of domains, roles and Teachers that say nothing."""
    teachers = [one.teacher for one in runs]
    columns: dict[str, list[str]] = {
        "domain": [one.domain for one in runs],
        "run": [one.id for one in runs],
        "role": [" = ".join(one.roles) for one in runs],
        "backbone": [one.backbone for one in runs],
        "Teacher": teachers if len({*teachers, ""}) > 2 else [],
        "α": [_number(one.alpha, "g") for one in runs],
        "seed": [str(one.seed) if one.seed >= 0 else DASH for one in runs],
        "state": [one.state for one in runs],
        "epoch": [str(one.epochs or DASH) for one in runs],
        "val AUC": [_number(one.val_auc) for one in runs],
        "seconds": [_number(one.seconds, ".0f") for one in runs],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells) or not runs}
    if console is None:
        console = Console()
        if not console.is_terminal:  # other programs read a pipe, so that lines are not wrapped
            console.width = 240
    lines = list(zip(*shown.values(), strict=True))
    print_table(list(shown), lines, console, right=("α", "seed", "epoch", "val AUC", "seconds"))


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
