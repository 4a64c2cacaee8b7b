"""Trainings of a study folder or a store: their state, and those that new tables would lack."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from preceptor.config.files import load_config
from preceptor.errors import InputError
from preceptor.results.tables import RUNS, read_table
from preceptor.study.config import StudyConfig
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import PlannedRun
from preceptor.training.record import RunRecord
from preceptor.utils.results import is_finished


@dataclass(frozen=True)
class Run(PlannedRun):
    """Training of a study or a store; in a store it has no roles and no domain.

    Args:
        state: finished, begun (will be resumed at its last epoch) or waiting.
        epochs: Number of finished epochs, or the selected epoch of a finished training.
        val_auc: AUC on the worst validation set at the selected epoch; NaN if not finished.
        seconds: Training time in seconds; NaN if not finished.
    """

    state: Literal["finished", "begun", "waiting"] = "waiting"
    epochs: int = 0
    val_auc: float = math.nan
    seconds: float = math.nan


def runs_of_study(folder: Path, planned: Iterable[PlannedRun]) -> list[Run]:
    """Trainings of a study.

    Args:
        folder: Study folder.
        planned: Runs of the study's plan.

    Raises:
        InputError: The study's config or the record of a training cannot be read.
    """
    runs = load_config(folder / "study.yaml", StudyConfig).store_of(folder.absolute()) / "runs"
    return [_run(runs / one.id, one) for one in planned]


def runs_of_store(folder: Path) -> list[Run]:
    """Trainings in a store or in its folder of runs.

    Raises:
        InputError: The folder has no training, or the record of one cannot be read.
    """
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    found = [
        one
        for one in sorted(runs.iterdir() if runs.is_dir() else [])
        if is_finished(one) or (one / "resume.safetensors").is_file()
    ]
    if not found:
        raise InputError(f"{folder}: neither a study folder (study.yaml) nor a store of runs")
    return [_run(one, PlannedRun(one.name, (), "", math.nan, -1)) for one in found]


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


@dataclass(frozen=True)
class LostRuns:
    """Trainings that the tables of a study folder have, and new tables would not.

    Args:
        trainings: Number of finished trainings in the tables.
        missing: Descriptions of those whose folder has no result any more.
        changed: Descriptions of those that are no part of the study any more, since its images or
            settings have changed.
    """

    trainings: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        """Numbers, and the first training of each kind."""
        found = []
        for several, why in (
            (self.missing, "missing"),
            (self.changed, "of other data or settings"),
        ):
            if several:
                found.append(f"{len(several)} of {self.trainings} {why} (first: {several[0]})")
        return ", ".join(found)


def lost_runs(study: StudyPlan, out: Path) -> LostRuns | None:
    """Trainings in the tables of a study folder that are missing, or of other data or settings.

    Args:
        study: Plan of the study with its choices.
        out: Study folder.

    Returns:
        The trainings; None if there are none, or no tables.

    Raises:
        InputError: runs.csv is no table of runs.
    """
    table = read_table(out / "runs.csv", RUNS)
    table = table[table["finished"].astype(bool)].drop_duplicates("run")
    known = {one.id for one in study.planned_runs()}
    missing, changed = [], []
    for row in table.to_dict("records"):
        name = f"{row['role']} {row['backbone']}, seed {row['seed']}: {row['run']}"
        if not is_finished(study.first.protocol.run_folder(row["run"])):
            missing.append(name)
        # Every study has the runs of Baseline 2, whatever it selects.
        elif row["role"] == "baseline2" and row["run"] not in known:
            changed.append(name)
    return LostRuns(len(table), tuple(missing), tuple(changed)) if missing or changed else None
