"""The trainings of a study folder or a store: what each is, how far it is, how good."""

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

from preceptor.driver import reopen
from preceptor.errors import InputError
from preceptor.runtime.result_folder import is_finished
from preceptor.training.record import RunRecord


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        id: Of the run.
        roles: Roles in the study; empty in a store.
        backbone, alpha, seed: Of the run; "", NaN and −1 where it has not begun in a store.
        state: finished, begun (it goes on from its last epoch) or waiting.
        epochs: Done of a training that has begun, or the kept one's number.
        val_auc: On the worst validation set at the kept epoch; NaN until it has finished.
        seconds: Of training; NaN until it has finished.
        domain: Which, or "".
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
    """The trainings of a study as far as they are known, or those that a store holds.

    Raises:
        InputError: Neither a study folder nor a store.
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
    found = []
    for plan in reopen(folder):
        roles: dict[str, list[str]] = {}
        for member in plan.members:
            of = roles.setdefault(member.run, [])
            of += [member.arm.label] if member.arm.label not in of else []
        seen = set()
        for member in plan.members:
            if member.run not in seen:
                seen.add(member.run)
                arm, where = member.arm, plan.protocol.run_folder(member.run)
                found.append(
                    _of_folder(
                        where,
                        tuple(roles[member.run]),
                        arm.backbone,
                        arm.alpha,
                        member.seed,
                        plan.domain,
                    )
                )
    return found


def _of_folder(
    folder: Path, roles: tuple[str, ...], backbone: str, alpha: float, seed: int, domain: str
) -> Run:
    if is_finished(folder):
        record = RunRecord.read(folder)
        try:
            config, aucs = record.config, [one.auc for one in record.sets.values()]
            return Run(
                folder.name, roles, config["backbone"],
                1.0 if config["maps"]["kind"] == "none" else config["alpha"], config["seed"],
                "finished", record.best_epoch, min(aucs, default=math.nan), record.seconds,
                domain,
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / 'run.json'}: not the record of a training; remove the folder"
            ) from error
    epochs = _epochs(folder / "resume.safetensors")
    state = "waiting" if epochs is None else "begun"
    return Run(folder.name, roles, backbone, alpha, seed, state, epochs or 0, domain=domain)


def _epochs(file: Path) -> int | None:
    """Epochs that an interrupted training has done; None where it left nothing whole."""
    try:
        with safe_open(file, "pt") as opened:
            return int(json.loads(opened.metadata()["state"])["epoch"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def runs_table(runs: Sequence[Run]) -> Table:
    """Table of runs, a line each; headings and numbers are never cut, long names are folded."""
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
            one.id, " = ".join(one.roles), one.backbone, _number(one.alpha, "g"),
            str(one.seed) if one.seed >= 0 else "–", one.state, str(one.epochs or "–"),
            _number(one.val_auc, ".3f"), _number(one.seconds, ".0f"),
        ]  # fmt: skip
        table.add_row(*map(escape, [*([one.domain] if domains else []), *cells]))
    return table


def print_runs(runs: Sequence[Run]) -> None:
    """Print runs as a table, a line a training."""
    # Piped, a line is not wrapped: it is read by other programs.
    console = Console()
    (console if console.is_terminal else Console(width=240)).print(runs_table(runs))


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"
