"""Output of `preceptor runs`: the trainings of a study folder or a store."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError, safe_open

from preceptor.config.yaml_file import load_config
from preceptor.errors import InputError
from preceptor.runtime.bulk_import import bulk_import
from preceptor.runtime.result_folder import is_finished
from preceptor.study.config import StudyConfig
from preceptor.study.planned_runs import read_planned_runs
from preceptor.training.record import RunRecord


@dataclass(frozen=True)
class Run:
    """Training of a study or a store.

    Args:
        id: Run id.
        roles: Roles in the study; empty in a store.
        backbone, alpha, seed: Backbone, α and seed; "", NaN and −1 if unknown.
        state: finished, begun (will be resumed at its last epoch) or waiting.
        epochs: Number of finished epochs, or the selected epoch of a finished training.
        val_auc: AUC on the worst validation set at the selected epoch; NaN if not finished.
        seconds: Training time in seconds; NaN if not finished.
        domain: Domain, or "".
    """

    id: str
    roles: tuple[str, ...]
    backbone: str
    alpha: float
    seed: int
    state: str
    epochs: int = 0
    val_auc: float = math.nan
    seconds: float = math.nan
    domain: str = ""


def list_runs(folder: Path) -> list[Run]:
    """Known trainings of a study, or all trainings in a store.

    Raises:
        InputError: The folder is neither a study folder nor a store.
    """
    if (folder / "study.yaml").is_file():
        return _of_study(folder)
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    found = [
        one
        for one in sorted(runs.iterdir() if runs.is_dir() else [])
        if is_finished(one) or (one / "resume.safetensors").is_file()
    ]
    if not found:
        raise InputError(f"{folder}: neither a study folder (study.yaml) nor a store of runs")
    return [_of_folder(one, (), "", math.nan, -1, "") for one in found]


def _of_study(folder: Path) -> list[Run]:
    study = load_config(folder / "study.yaml", StudyConfig)
    planned = read_planned_runs(folder)
    if planned is None:  # the plan itself needs the images, and torch, whose import takes seconds
        with bulk_import():
            from preceptor.study_folder import reopen

        planned = reopen(folder).planned_runs()
    runs = study.store_of(folder.absolute()) / "runs"
    return [
        _of_folder(runs / one.id, one.roles, one.backbone, one.alpha, one.seed, one.domain)
        for one in planned
    ]


def _of_folder(
    folder: Path, roles: tuple[str, ...], backbone: str, alpha: float, seed: int, domain: str
) -> Run:
    if is_finished(folder):
        record = RunRecord.read(folder)
        try:
            config, aucs = record.config, [one.auc for one in record.sets.values()]
            return Run(
                folder.name,
                roles,
                config["backbone"],
                1.0 if config["maps"]["kind"] == "none" else config["alpha"],
                config["seed"],
                "finished",
                record.best_epoch,
                min(aucs, default=math.nan),
                record.seconds,
                domain,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / 'run.json'}: not the record of a training; remove the folder"
            ) from error
    epochs = _epochs(folder / "resume.safetensors")
    state = "waiting" if epochs is None else "begun"
    return Run(folder.name, roles, backbone, alpha, seed, state, epochs or 0, domain=domain)


def _epochs(file: Path) -> int | None:
    """Number of finished epochs of an interrupted training; None without a valid checkpoint."""
    try:
        with safe_open(file, "np") as opened:
            return int(json.loads(opened.metadata()["state"])["epoch"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def runs_table(runs: Sequence[Run]) -> Table:
    """Table of runs; headings and numbers are never cut, long names are folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    if domains := any(one.domain for one in runs):
        table.add_column("domain", overflow="fold", min_width=6)
    table.add_column("run", overflow="fold", min_width=6)
    table.add_column("role", overflow="fold", min_width=8)
    table.add_column("backbone", overflow="fold", min_width=8)
    for heading in ("α", "seed", "state", "epoch", "val AUC", "seconds"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "state" else "right")
    for one in runs:
        cells = [
            one.id,
            " = ".join(one.roles),
            one.backbone,
            _number(one.alpha, "g"),
            str(one.seed) if one.seed >= 0 else "–",
            one.state,
            str(one.epochs or "–"),
            _number(one.val_auc, ".3f"),
            _number(one.seconds, ".0f"),
        ]
        table.add_row(*map(escape, [*([one.domain] if domains else []), *cells]))
    return table


def print_runs(runs: Sequence[Run]) -> None:
    """Print a table of runs."""
    # In a pipe, lines are not wrapped, since other programs read them.
    console = Console()
    (console if console.is_terminal else Console(width=240)).print(runs_table(runs))


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"
