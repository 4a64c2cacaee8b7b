"""What executors share; and one step: train, make or join maps, score the test sets."""

from __future__ import annotations

import gc
import os
import shutil
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from preceptor.config.run import RunConfig
from preceptor.errors import HeldError, LeaseLostError, PreceptorError, RunFailedError
from preceptor.inference.annotate import compute_maps, joined, maps_record
from preceptor.inference.predict import score_frame
from preceptor.maps.store import read_store, write_store
from preceptor.models.build import load_model
from preceptor.models.guided_model import GuidedModel
from preceptor.study.steps import (
    STEP_FOLDERS,
    Evaluate,
    JoinMaps,
    MakeMaps,
    Select,
    Step,
    Train,
    shard_id,
    weights_of,
)
from preceptor.study.workspaces import Workspaces
from preceptor.training.run import train
from preceptor.utils import process
from preceptor.utils.files import failed_write
from preceptor.utils.leases import lease
from preceptor.utils.process import fix_order_of_sums, keep_freed_memory
from preceptor.utils.results import finish, is_finished, read_record
from preceptor.utils.text import silence

_KEPT_LINES = 200  # lines of progress in the log of a failed step
HANG_TIMEOUT = 30.0
"""Default minutes without a training step or a scored batch after which a step counts as hung."""

Kind = Literal[
    "ready",  # a worker can take steps; belongs to no step
    "assigned",  # a machine has started the step
    "epoch",  # summary of an epoch of a training
    "message",
    "done",
    "already_done",  # finished by another process
    "held",  # another process is computing it
    "failed",
]


@dataclass(frozen=True)
class Event:
    """Event of one step; `text` is the machine, the line or the reason."""

    kind: Kind
    step: str  # id
    text: str = ""

    @property
    def ends(self) -> bool:
        """Whether the executor has finished with the step."""
        return self.kind not in ("ready", "assigned", "epoch", "message")


@dataclass(frozen=True)
class WorkerContext:
    """Data and settings that every worker of a study needs."""

    workspaces: Workspaces  # opened separately by each worker
    store: Path  # folder of runs, maps and evaluations; accessible from all machines
    threads: int = 1  # of a step
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    hang_timeout: float = 60 * HANG_TIMEOUT  # seconds without progress that end a step

    def forget_hang(self, step: Step) -> None:
        """Remove the log of an earlier hang, which may not recur."""
        if process.hung(log := log_of(step, self.store)):
            log.unlink(missing_ok=True)

    def hang_event(self, step: Step) -> Event:
        """Failure of a step that hung."""
        seconds = self.hang_timeout
        told = f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
        log = log_of(step, self.store).relative_to(self.store.parent)
        text = f"hung: silent for {told}, so it was ended (where it stood: {log})"
        return Event("failed", step.id, text)


class Executor(Protocol):
    """Executes steps, several at a time; each step ends with one event."""

    @property
    def free(self) -> int:
        """Number of steps that can be started now."""

    def start(self, step: Step) -> None:
        """Start a step."""

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Wait for the next events; returns without any after `timeout` seconds."""

    def close(self) -> None:
        """Stop all running steps; their files are kept."""


def log_of(step: Step, store: Path) -> Path:
    """Log of a failed step."""
    return store / "failed" / f"{step.id}.log"


def keep_error(step: Step, store: Path, error: Exception, lines: Iterable[str] = ()) -> str:
    """Write the log of a failed step, with its last lines; returns the reason in one line."""
    reason = str(error)
    if isinstance(error, OSError):
        reason = failed_write(error, store if step.kind == "select" else step.folder(store))
    elif not isinstance(error, PreceptorError):  # an unexpected error
        reason = f"{type(error).__name__}: {' '.join(reason.split())[:200]}"
    text = [*(f"{line}\n" for line in lines), *traceback.format_exception(error)]
    return keep_reason(step, store, reason, "".join(text))


def keep_reason(step: Step, store: Path, reason: str, text: str = "") -> str:
    """Write the log of a failed step; returns the reason, with the path of the log."""
    log = log_of(step, store)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"{step.title}\n{text or reason}\n", encoding="utf-8")
    except OSError:  # the log cannot be written on a full disk either
        return reason
    return f"{reason} (see {log.relative_to(store.parent)})"


def perform(
    step: Step,
    store: Path,
    workspaces: Workspaces,
    tell: Callable[[str], None] | None = None,
    tell_epoch: Callable[[str], None] | None = None,
    wait: float | None = None,
) -> bool:
    """Execute one step other than a selection; False if it had finished before.

    `tell` and `tell_epoch` receive messages and the summary line of each epoch. After `wait`
    seconds for another process that computes the step (None = unlimited), a HeldError follows.
    """
    work = step.work
    assert not isinstance(work, Select), "selections are executed by the scheduler"
    if isinstance(work, Train):
        outcome = train(
            work.config,
            store / STEP_FOLDERS["train"],
            workspace=workspaces.at(work.config.manifest),
            tell=tell,
            tell_epoch=tell_epoch,
            wait=wait,
            expected_id=step.id,
        )
        return outcome.trained
    folder = step.folder(store)
    with lease(folder, wait=wait) as held:
        process.beat()
        if is_finished(folder):  # a process may have been killed before it did this
            return False
        joined_id = work.joined if isinstance(work, MakeMaps) else ""
        if joined_id and is_finished(store / STEP_FOLDERS["maps"] / joined_id):
            return False  # another process joined the shards in the meantime
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted process has left
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            if isinstance(work, MakeMaps):
                record = _make_maps(work, store, folder, workspaces)
            elif isinstance(work, JoinMaps):
                record = _join(step.id, work, store, folder)
            else:
                record = _evaluate(work, store, folder, workspaces)
            held.check()
            seconds = record.pop("seconds", 0.0) + time.monotonic() - started
            done = {"id": step.id} | record | {"seconds": round(seconds, 3)}
            finish(folder, done)
        except OSError as error:
            raise RunFailedError(failed_write(error, folder)) from error
        drop_shards(step, store)
    return True


def drop_shards(step: Step, store: Path) -> None:
    """Remove remaining shards of a finished map store."""
    if isinstance(step.work, JoinMaps):
        for number in range(len(step.work.shards)):
            shutil.rmtree(_shard_folder(store, step.id, number), ignore_errors=True)


def _trained(folder: Path, config: RunConfig) -> GuidedModel:
    """Model of a finished run, with the threads and memory layout of its training."""
    torch.set_num_threads(config.training.threads)
    fix_order_of_sums()
    torch.use_deterministic_algorithms(True, warn_only=True)  # as in trainings of this process
    model = load_model(folder)
    if config.training.device != "cpu" and torch.cuda.is_available():
        model = model.cuda()
    if config.training.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _make_maps(work: MakeMaps, store: Path, folder: Path, workspaces: Workspaces) -> dict[str, Any]:
    """Make the maps of one shard."""
    workspace = workspaces.at(work.config.manifest)
    trained = store / STEP_FOLDERS["train"] / work.run / "model"
    model = _trained(trained, work.config)
    training = work.config.training
    rows = work.shard.rows(workspace.manifest)
    record: dict[str, Any] = {"kind": "maps", "teacher": work.run, "images": len(rows)}
    record |= {"run": work.run, "weights_checksum": weights_of(store, work.run)}
    made = compute_maps(
        model,
        workspace,
        rows,
        work.method,
        teacher=work.run,
        rise=work.rise,
        cam_class="decision" if work.decision else "label",
        precision=training.precision,
        cache=training.cache,
    )
    write_store(folder, made)
    return record | maps_record(made)


def _join(identity: str, work: JoinMaps, store: Path, folder: Path) -> dict[str, Any]:
    """Join shards to a map store."""
    folders = [_shard_folder(store, identity, number) for number in range(len(work.shards))]
    seconds: float = sum(read_record(folder)["seconds"] for folder in folders)
    made = joined(list(map(read_store, folders)))
    write_store(folder, made)
    record = {"kind": "maps", "teacher": made.info.teacher, "images": len(made.paths)}
    record |= {"shards": len(work.shards), "seconds": seconds, "run": made.info.teacher}
    record |= {"weights_checksum": read_record(folders[0]).get("weights_checksum", "")}
    return record | maps_record(made)


def _shard_folder(store: Path, joined_id: str, number: int) -> Path:
    return store / STEP_FOLDERS["shard"] / shard_id(joined_id, number)


def _evaluate(work: Evaluate, store: Path, folder: Path, workspaces: Workspaces) -> dict[str, Any]:
    workspace = workspaces.at(work.config.manifest)
    record: dict[str, Any] = {"kind": "evaluation", "run": work.run}
    record |= {"weights_checksum": weights_of(store, work.run)}
    model = _trained(store / STEP_FOLDERS["train"] / work.run / "model", work.config)
    rows = workspace.split_rows("test")
    frame = score_frame(model, workspace, rows, work.config.training.cache)
    frame.to_parquet(folder / "scores.parquet", index=False)
    return record | {"images": len(frame)}


def carry_out(step: Step, context: WorkerContext, send: Callable[[Event], None]) -> Event:
    """Execute a step, send its events and return the last one; no error is raised."""
    log = log_of(step, context.store)
    if process.hung(log):  # retried by an executor that saw only that the process died
        return context.hang_event(step)
    lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def report(kind: Literal["epoch", "message"], line: str) -> None:
        lines.append(line)
        send(Event(kind, step.id, line))

    told = partial(report, "message"), partial(report, "epoch")
    try:
        with process.watched(log, context.hang_timeout):
            done = perform(step, context.store, context.workspaces, *told, wait=0.0)
        return Event("done" if done else "already_done", step.id)
    except (HeldError, LeaseLostError) as error:
        return Event("held", step.id, str(error))
    except Exception as error:
        return Event("failed", step.id, keep_error(step, context.store, error, lines))
    finally:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # others share the GPU
            gc.collect()
            torch.cuda.empty_cache()


def serve(pipe: Connection, environment: dict[str, str]) -> None:
    """Execute the steps that follow a context in a pipe and send events, until the parent ends."""
    gc.freeze()  # what the fork server has imported is no garbage
    os.environ.update(environment)
    silence()
    keep_freed_memory()
    try:
        context = pipe.recv()
        pipe.send(Event("ready", ""))
        while True:
            pipe.send(carry_out(pipe.recv(), context, pipe.send))
    except (EOFError, OSError):
        return
