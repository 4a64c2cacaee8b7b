"""What a step does, inside a worker: train, mark, average maps, score the test sets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from preceptor.config import RunConfig
from preceptor.errors import RunFailedError
from preceptor.evaluation.scores import score_frame
from preceptor.models import GuidableModel, load_model
from preceptor.runs import exclusive, finish, is_finished
from preceptor.saliency.annotate import annotate
from preceptor.saliency.store import MapStore, StoreInfo, read_store, write_store
from preceptor.study.graph import Step
from preceptor.training import train
from preceptor.workspace import Workspace, plain_settings


def perform(
    step: Step, store: Path, workspace: Workspace, tell: Callable[[str], None] | None = None
) -> None:
    """Do one step, unless it is finished; leaves its folder with a run.json.

    Args:
        step: Anything but a selection.
        store: Of runs, maps and evaluations.
        workspace: The manifest.
        tell: Called with lines of progress.

    Raises:
        PreceptorError: It cannot be done.
    """
    if step.kind == "train":
        assert step.run is not None
        train(step.run, store / "runs", workspace=workspace, tell=tell)
        return
    folder = store / ("evaluations" if step.kind == "evaluate" else "maps") / step.id
    with exclusive(folder):
        if is_finished(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            if step.kind == "annotate":
                _annotate(step, store, folder, workspace)
            elif step.kind == "committee":
                _committee(step, store, folder)
            else:
                _evaluate(step, store, folder, workspace)
        except OSError as error:
            raise RunFailedError(f"{step.title}: {error.strerror or error}") from error


def _trained(run: str, config: RunConfig, store: Path) -> GuidableModel:
    """A finished run's model, as it was trained: threads and memory layout."""
    torch.set_num_threads(config.training.threads)
    model = load_model(store / "runs" / run / "model")
    if config.training.device != "cpu" and torch.cuda.is_available():
        model = model.cuda()
    if config.training.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _annotate(step: Step, store: Path, folder: Path, workspace: Workspace) -> None:
    assert step.run is not None
    assert step.maps is not None
    run = step.maps.teacher[0]
    model = _trained(run, step.run, store)
    made = annotate(
        model,
        workspace.manifest,
        step.maps.method,  # type: ignore[arg-type]
        out=folder,
        teacher=run,
        workspace=workspace,
        cache=step.run.training.cache,
    )
    finish(folder, {"id": step.id, "kind": "maps", "teacher": run, "images": len(made.paths)})


def _committee(step: Step, store: Path, folder: Path) -> None:
    """The mean of the normalised maps of several Teachers on one grid."""
    assert step.maps is not None
    stores = [read_store(store / "maps" / identity) for identity in step.maps.teacher]
    first = stores[0]
    info = StoreInfo(
        teacher="+".join(one.info.teacher for one in stores),
        method=first.info.method,
        fit=first.info.fit,
        side=first.info.side,
        classes=first.info.classes,
        settings=first.info.settings,
    )
    maps = np.mean([one.maps.astype(np.float32) for one in stores], axis=0)
    scores = np.mean([one.scores for one in stores], axis=0)
    write_store(folder, MapStore(info, first.paths, maps.astype(np.float16), first.classes, scores))
    finish(folder, {"id": step.id, "kind": "maps", "teacher": info.teacher, "images": len(maps)})


def _evaluate(step: Step, store: Path, folder: Path, workspace: Workspace) -> None:
    assert step.run is not None
    run = step.needs[0]
    model = _trained(run, step.run, store)
    rows = workspace.split_rows("test")
    settings = plain_settings(model, step.run.training.cache)
    frame = score_frame(model, workspace, rows, settings)
    frame.to_parquet(folder / "scores.parquet", index=False)
    finish(folder, {"id": step.id, "kind": "evaluation", "run": run, "images": len(frame)})
