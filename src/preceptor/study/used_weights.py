"""Weights with which test scores and maps were made, and whether their runs have others now.

The id of a run does not have the device and the versions of its training: a run whose folder was
removed or damaged may have other weights when it is trained again. Its test scores and maps are
then those of another model, and are made again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from preceptor.runtime.result_folder import checksum, is_finished, read_record
from preceptor.study.steps import STEP_FOLDERS

_KEY = "weights"  # of a record: checksum of the weights by run id
_FILE = "model/model.safetensors"


def used_weights(store: Path, runs: Iterable[str]) -> dict[str, dict[str, str]]:
    """Part of a record: the weights of the runs that a step uses.

    Args:
        store: Folder of runs, maps and evaluations.
        runs: Ids of finished runs.
    """
    return {_KEY: {run: checksum(_run(store, run), _FILE) for run in runs}}


def joined_weights(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Part of a record: the weights of all records from which a step makes its result."""
    found: dict[str, str] = {}
    for record in records:
        found |= record.get(_KEY, {})
    return {_KEY: found}


def trained_again(folder: Path, store: Path) -> list[str]:
    """Runs that have other weights now than those with which a result was made.

    Weights that are unknown are not compared: those of a run that has not finished, of a run in an
    archive, and of a result of an earlier version.

    Args:
        folder: Folder of a finished evaluation or map store.
        store: Folder of runs, maps and evaluations.
    """
    found = []
    for run, before in read_record(folder).get(_KEY, {}).items():
        if before and is_finished(_run(store, run)):
            now = checksum(_run(store, run), _FILE)
            if now and now != before:
                found.append(run)
    return found


def _run(store: Path, run: str) -> Path:
    return store / STEP_FOLDERS["train"] / run
