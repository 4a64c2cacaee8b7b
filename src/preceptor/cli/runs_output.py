"""Output of `preceptor runs`: the trainings of a study folder or a store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.results.runs import Run, runs_of_store, runs_of_study
from preceptor.study.steps import read_planned_runs
from preceptor.utils.process import bulk_import


def list_runs(folder: Path) -> list[Run]:
    """Known trainings of a study, or all trainings in a store.

    Raises:
        InputError: The folder is neither a study folder nor a store.
    """
    if not (folder / "study.yaml").is_file():
        return runs_of_store(folder)
    planned = read_planned_runs(folder)
    if planned is None:  # the plan itself needs the images, and torch, whose import takes seconds
        with bulk_import():
            from preceptor.study_folder import reopen

        planned = reopen(folder).planned_runs()
    return runs_of_study(folder, planned)


def runs_table(runs: Sequence[Run]) -> Table:
    """Table of runs; headings and numbers are never cut, long names are folded.

    The columns of domains and of roles are left out where no run has one: a store knows no roles.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    if domains := any(one.domain for one in runs):
        table.add_column("domain", overflow="fold", min_width=6)
    table.add_column("run", overflow="fold", min_width=6)
    if roles := any(one.roles for one in runs):
        table.add_column("role", overflow="fold", min_width=8)
    table.add_column("backbone", overflow="fold", min_width=8)
    for heading in ("α", "seed", "state", "epoch", "val AUC", "seconds"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "state" else "right")
    for one in runs:
        cells = [
            *([one.domain] if domains else []),
            one.id,
            *([" = ".join(one.roles)] if roles else []),
            one.backbone,
            _number(one.alpha, "g"),
            str(one.seed) if one.seed >= 0 else "–",
            one.state,
            str(one.epochs or "–"),
            _number(one.val_auc, ".3f"),
            _number(one.seconds, ".0f"),
        ]
        table.add_row(*map(escape, cells))
    return table


def print_runs(runs: Sequence[Run]) -> None:
    """Print a table of runs."""
    # In a pipe, lines are not wrapped, since other programs read them.
    console = Console()
    (console if console.is_terminal else Console(width=240)).print(runs_table(runs))


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"
