"""What a step does, inside a worker: train, mark, average maps, score the test sets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from preceptor.config.run import RunConfig
from preceptor.errors import RunFailedError
from preceptor.inference.annotate import mark_rows, marking_record, rise_correlations
from preceptor.inference.score import score_frame
from preceptor.inference.shards import joined
from preceptor.maps.committee import mean_store
from preceptor.maps.store import MapStore, read_store, write_store
from preceptor.models.build import load_model
from preceptor.models.guided_model import GuidableModel
from preceptor.runtime import watchdog
from preceptor.runtime.leases import lease
from preceptor.runtime.result_folder import finish, is_finished, read_record
from preceptor.study.steps import ROOMS, Step, shard_id
from preceptor.study.workspaces import Workspaces
from preceptor.training.record import metric_name
from preceptor.training.run import train


def perform(
    step: Step,
    store: Path,
    workspaces: Workspaces,
    tell: Callable[[str], None] | None = None,
    wait: float | None = None,
    alone: bool = True,
) -> bool:
    """Do one step, unless it is finished; leaves its folder with a run.json.

    Args:
        step: Anything but a selection.
        store: Of runs, maps and evaluations.
        workspaces: The manifests.
        tell: Called with lines of progress.
        wait: Seconds to wait where another process does the same step; None = until it ends.
        alone: Whether nothing else uses its device, see `run.train`.

    Returns:
        Whether it was done now; false where another process finished it in the meantime.

    Raises:
        HeldError: Another process does it.
        CrowdedError: Its device is shared and has no room for it.
        PreceptorError: It cannot be done.
    """
    if step.kind == "train":
        assert step.run is not None
        workspace = workspaces.at(step.run.manifest)
        found = train(
            step.run, store / "runs", workspace=workspace, tell=tell, wait=wait, alone=alone
        )
        return found.trained
    folder = step.folder(store)
    with lease(folder, wait=wait) as held:
        watchdog.beat()
        if is_finished(folder):
            return False
        if step.part_of and is_finished(store / ROOMS["annotate"] / step.part_of):
            return False  # another process joined the shards in the meantime
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            if step.kind == "annotate" and step.maps is not None and len(step.maps.parts) > 1:
                record = _join(step, store, folder)
            elif step.kind in ("annotate", "shard"):
                record = _mark(step, store, folder, workspaces)
            elif step.kind == "committee":
                record = _committee(step, store, folder)
            else:
                record = _evaluate(step, store, folder, workspaces)
            held.check()
            seconds = record.pop("seconds", 0.0) + time.monotonic() - started
            finish(folder, record | {"seconds": round(seconds, 3)})
        except OSError as error:
            raise RunFailedError(f"{step.title}: {error.strerror or error}") from error
        drop_shards(step, store)
    return True


def drop_shards(step: Step, store: Path) -> None:
    """Remove the shards of a marking whose map store is finished, if any are left."""
    if step.kind == "annotate" and step.maps is not None and len(step.maps.parts) > 1:
        for place in range(len(step.maps.parts)):
            shutil.rmtree(store / ROOMS["shard"] / shard_id(step.id, place), ignore_errors=True)


def _trained(folder: Path, config: RunConfig) -> GuidableModel:
    """A finished run's model, as it was trained: threads and memory layout."""
    torch.set_num_threads(config.training.threads)
    model = load_model(folder)
    if config.training.device != "cpu" and torch.cuda.is_available():
        model = model.cuda()
    if config.training.speed.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _mark(step: Step, store: Path, folder: Path, workspaces: Workspaces) -> dict[str, Any]:
    """The maps of one part; of validation images how they agree with people's alone."""
    assert step.run is not None
    assert step.maps is not None
    workspace = workspaces.at(step.run.manifest)
    job, (part,), (run,) = step.maps, step.maps.parts, step.maps.teacher
    model = _trained(job.model or _run_folder(store, run) / "model", step.run)
    training = step.run.training
    rows = part.rows(workspace.manifest)
    record: dict[str, Any] = {"id": step.id, "kind": "maps", "teacher": run, "images": len(rows)}
    if part.agreement:
        assert job.rise is not None
        found = rise_correlations(
            model, workspace, rows, job.rise, training.speed.precision, cache=training.cache
        )
        return record | {"correlations": found}
    made = mark_rows(
        model, workspace, rows, job.method, teacher=run, turns=job.turns, rise=job.rise,
        precision=training.speed.precision, cache=training.cache,
    )  # fmt: skip
    write_store(folder, made)
    return record | marking_record(made)


def _join(step: Step, store: Path, folder: Path) -> dict[str, Any]:
    """The shards of a marking as one map store."""
    assert step.maps is not None
    made, metrics, seconds = join_shards(step, store)
    write_store(folder, made)
    record: dict[str, Any] = {
        "id": step.id, "kind": "maps", "teacher": made.info.teacher, "images": len(made.paths),
        "shards": len(step.maps.parts), "seconds": seconds,
    }  # fmt: skip
    if metrics:
        record["metrics"] = metrics
    return record | marking_record(made)


def join_shards(step: Step, store: Path) -> tuple[MapStore, dict[str, float], float]:
    """What the shards of a marking hold together.

    Args:
        step: The step that joins them.
        store: Of the shards.

    Returns:
        The maps; `VAL_map_correlation` of each validation set that RISE looked at, the mean
        correlation with human maps; and the seconds that the shards took.
    """
    assert step.maps is not None
    stores: list[MapStore] = []
    correlations: dict[str, list[float]] = {}
    seconds = 0.0
    for place, part in enumerate(step.maps.parts):
        folder = store / ROOMS["shard"] / shard_id(step.id, place)
        record = read_record(folder)
        seconds += record["seconds"]
        if part.agreement:
            correlations.setdefault(part.split, []).extend(record["correlations"])
        else:
            stores.append(read_store(folder))
    metrics = {
        metric_name(name, "map_correlation"): float(torch.tensor(values).mean())
        for name, values in correlations.items()
        if values
    }
    return joined(stores), metrics, seconds


def _run_folder(store: Path, run: str) -> Path:
    return store / ROOMS["train"] / run


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
    model = _trained(_run_folder(store, run) / "model", step.run)
    rows = workspace.split_rows("test")
    frame = score_frame(model, workspace, rows, step.run.training.cache)
    frame.to_parquet(folder / "scores.parquet", index=False)
    return {"id": step.id, "kind": "evaluation", "run": run, "images": len(frame)}
