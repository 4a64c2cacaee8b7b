"""Trainings of a study folder or a store, and their state."""

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
from preceptor.study.config import StudyConfig
from preceptor.study.steps import PlannedRun
from preceptor.training.record import RunRecord
from preceptor.utils.results import is_finished


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
