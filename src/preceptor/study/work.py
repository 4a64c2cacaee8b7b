"""What a step does, inside a worker: train, mark, average maps, score the test sets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from preceptor.config import RunConfig
from preceptor.errors import RunFailedError
from preceptor.evaluation.scores import score_frame
from preceptor.leases import lease
from preceptor.models import GuidableModel, load_model
from preceptor.runs import finish, is_finished
from preceptor.saliency.annotate import annotate, marking_record, rise_agreement
from preceptor.saliency.committee import mean_store
from preceptor.saliency.store import read_store, write_store
from preceptor.study.draws import Workspaces
from preceptor.study.graph import Step
from preceptor.training import train
from preceptor.workspace import plain_settings


def perform(
    step: Step,
    store: Path,
    workspaces: Workspaces,
    tell: Callable[[str], None] | None = None,
    wait: float | None = None,
) -> bool:
    """Do one step, unless it is finished; leaves its folder with a run.json.

    Args:
        step: Anything but a selection.
        store: Of runs, maps and evaluations.
        workspaces: The manifests.
        tell: Called with lines of progress.
        wait: Seconds to wait where another process does the same step; None = until it ends.

    Returns:
        Whether it was done now; false where another process finished it in the meantime.

    Raises:
        HeldError: Another process does it.
        PreceptorError: It cannot be done.
    """
    if step.kind == "train":
        assert step.run is not None
        workspace = workspaces.at(step.run.manifest)
        found = train(step.run, store / "runs", workspace=workspace, tell=tell, wait=wait)
        return found.trained
    folder = store / ("evaluations" if step.kind == "evaluate" else "maps") / step.id
    with lease(folder, wait=wait) as held:
        if is_finished(folder):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.monotonic()
        try:
            if step.kind == "annotate":
                record = _annotate(step, store, folder, workspaces)
            elif step.kind == "committee":
                record = _committee(step, store, folder)
            else:
                record = _evaluate(step, store, folder, workspaces)
            held.check()
            finish(folder, record | {"seconds": round(time.monotonic() - started, 3)})
        except OSError as error:
            raise RunFailedError(f"{step.title}: {error.strerror or error}") from error
    return True


def _trained(run: str, config: RunConfig, store: Path) -> GuidableModel:
    """A finished run's model, as it was trained: threads and memory layout."""
    torch.set_num_threads(config.training.threads)
    model = load_model(store / "runs" / run / "model")
    if config.training.device != "cpu" and torch.cuda.is_available():
        model = model.cuda()
    if config.training.speed.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _annotate(step: Step, store: Path, folder: Path, workspaces: Workspaces) -> dict[str, Any]:
    assert step.run is not None
    workspace = workspaces.at(step.run.manifest)
    assert step.maps is not None
    run = step.maps.teacher[0]
    model = _trained(run, step.run, store)
    made = annotate(
        model,
        workspace.manifest,
        step.maps.method,
        out=folder,
        teacher=run,
        workspace=workspace,
        turns=step.maps.turns,
        rise=step.maps.rise,
        precision=step.run.training.speed.precision,
        cache=step.run.training.cache,
    )
    record: dict[str, Any] = {
        "id": step.id,
        "kind": "maps",
        "teacher": run,
        "images": len(made.paths),
    }
    if step.maps.rise is not None:
        record["metrics"] = rise_agreement(
            model, workspace, step.maps.rise, step.run.training.speed.precision,
            cache=step.run.training.cache,
        )  # fmt: skip
    return record | marking_record(made)


def _committee(step: Step, store: Path, folder: Path) -> dict[str, Any]:
    """The mean of the normalised maps of several Teachers on one grid."""
    assert step.maps is not None
    made = mean_store([read_store(store / "maps" / identity) for identity in step.maps.teacher])
    write_store(folder, made)
    return {"id": step.id, "kind": "maps", "teacher": made.info.teacher, "images": len(made.maps)}


def _evaluate(step: Step, store: Path, folder: Path, workspaces: Workspaces) -> dict[str, Any]:
    assert step.run is not None
    workspace = workspaces.at(step.run.manifest)
    run = step.needs[0]
    model = _trained(run, step.run, store)
    rows = workspace.split_rows("test")
    settings = plain_settings(model, step.run.training.cache)
    frame = score_frame(model, workspace, rows, settings)
    frame.to_parquet(folder / "scores.parquet", index=False)
    return {"id": step.id, "kind": "evaluation", "run": run, "images": len(frame)}
