"""One run: one model trained with one seed; also `python -m preceptor.training CONFIG`.

Reads top to bottom: prepare data and model, for each epoch train and validate, keep the best,
score the validation sets, write the run folder. Everything random is a function of (seed, epoch),
so a run that was interrupted goes on from its last epoch and ends with the same bits.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError

from preceptor.config.run import RunConfig, Training
from preceptor.config.yaml_file import dump_config
from preceptor.data.complete_sets import selection_problems
from preceptor.data.loader import Rows, TrainingStream
from preceptor.data.workspace import Workspace
from preceptor.errors import CrowdedError, InputError, PreceptorError, RunFailedError
from preceptor.evaluation.scores import fixed_thresholds
from preceptor.inference.score import score_frame
from preceptor.models.build import save_model
from preceptor.models.guided_model import GuidableModel
from preceptor.models.precision import renew_scaler, scaler_state
from preceptor.models.probes import check_trained
from preceptor.models.sync_batch_norm import has_batch_norm, synchronise
from preceptor.runtime import watchdog
from preceptor.runtime.leases import Lease, lease
from preceptor.runtime.memory import device_memory, out_of_memory, peak_memory, release_memory
from preceptor.runtime.progress import progress as progress_display
from preceptor.runtime.result_folder import finish, is_finished, read_record, write_atomically
from preceptor.training.checkpoint import Progress, load_progress, save_progress, snapshot
from preceptor.training.distributed import Ranks, Shared, make_fabric
from preceptor.training.loop import Trainer
from preceptor.training.micro_batches import more_parts
from preceptor.training.prepare import build, guided_rows, run_id_of
from preceptor.training.schedules import period_ends
from preceptor.training.validation import NotANumberError, validate, validation_sets
from preceptor.version import __version__


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        folder: The run folder.
        id: The run's id.
        record: The content of `run.json`.
        trained: Whether it was trained now, and not taken from the store.
    """

    folder: Path
    id: str
    record: dict[str, Any]
    trained: bool = True


def train(
    config: RunConfig,
    store: str | Path = "runs",
    *,
    workspace: Workspace | None = None,
    tell: Callable[[str], None] | None = None,
    wait: float | None = None,
    alone: bool = True,
) -> RunResult:
    """Train one model, or take the finished run of the same config and data from the store.

    Args:
        config: The run, on one device.
        store: Folder of run folders; the run goes to `store/<id>`.
        workspace: The manifest, opened once for many runs; None reads and checks it here.
        tell: Called with one line an epoch.
        wait: Seconds to wait where another process trains the same run; None = until it ends.
        alone: Whether nothing else uses the device: only then a training that runs out of memory
            goes on in smaller parts.

    Returns:
        The finished run.

    Raises:
        InputError: The config or the data cannot be used.
        RunFailedError: The loss became NaN or infinite, or memory or the disk is full.
        CrowdedError: Memory ran out, and the device is shared.
        HeldError: Another process trains the same run.
        LeaseLostError: Another process took it over while this one was asleep.
    """
    if config.training.processes > 1:
        raise InputError(
            f"training: devices × nodes is {config.training.processes}, and a run on several "
            "devices is a command of its own, started as python -m preceptor.training CONFIG"
        )
    return train_joined(
        config, store, Ranks(), None, workspace=workspace, tell=tell, wait=wait, alone=alone
    )


def train_joined(
    config: RunConfig,
    store: str | Path,
    ranks: Ranks,
    fabric: Fabric | None,
    *,
    workspace: Workspace | None = None,
    tell: Callable[[str], None] | None = None,
    wait: float | None = None,
    alone: bool = True,
) -> RunResult:
    """`train` in each of the processes that have joined for a run.

    Args:
        config: The run.
        store: A folder that all of them see.
        ranks, fabric: Of `distributed.join`; None makes a Fabric for one device.
        workspace, tell, wait, alone: As of `train`.

    Raises:
        RelayedError: Another process failed, and tells why.
        PreceptorError: As of `train`.
    """
    held: Lease | None = None
    with contextlib.ExitStack() as stack:

        def begin() -> tuple[Path, bool]:
            nonlocal workspace, held
            workspace = workspace or Workspace.open(config.manifest, verify=True)
            folder = Path(store) / run_id_of(workspace, config)
            held = stack.enter_context(lease(folder, wait=wait))
            return folder, is_finished(folder)

        folder, there = ranks.first(begin)
        watchdog.beat()
        if not there:
            run = _Run(config, folder, ranks, held, tell or (lambda line: None), alone)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                workspace = workspace or Workspace.open(config.manifest)
                _train(run, workspace, fabric or make_fabric(config.training))
            except (OSError, SafetensorError, MemoryError, RuntimeError) as error:
                if out_of_memory(error):
                    raise run.out_of_memory() from error
                if isinstance(error, RuntimeError):
                    raise
                reason = getattr(error, "strerror", None) or str(error)
                raise RunFailedError(f"run {folder.name}: {reason}") from error
        return RunResult(folder, folder.name, ranks.first(lambda: read_record(folder)), not there)


@dataclass(frozen=True)
class _Run:
    """A run, and who computes it.

    Args:
        config, folder: What it is, and where it goes.
        ranks: The processes.
        held: The lease, in the first of them.
        tell: Receives lines, in the first.
        alone: As of `train`.
    """

    config: RunConfig
    folder: Path
    ranks: Ranks
    held: Lease | None
    tell: Callable[[str], None]
    alone: bool

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def state(self) -> Path:
        """What it goes on from after an interruption."""
        return self.folder / "resume.safetensors"

    def check(self) -> None:
        """See that it is still ours, before anything is written that others will read."""
        assert self.held is not None
        self.held.check()

    def out_of_memory(self, images: int | None = None) -> PreceptorError:
        """The error of a run whose memory does not do, not even for so many images at once."""
        settings = self.config.training
        given = f"batch_size {settings.batch_size}"
        given += f", input_size {settings.input_size}" if settings.input_size else ""
        if not self.alone:
            return CrowdedError(f"run {self.id}: out of memory on a shared device ({given})")
        if self.ranks.world > 1:
            return RunFailedError(
                f"run {self.id}: out of memory on device {self.ranks.rank + 1} of "
                f"{self.ranks.world} ({given}); lower batch_size or take more devices"
            )
        even = f" even with {images} image{'s' * (images > 1)} at a time" if images else ""
        return RunFailedError(
            f"run {self.id}: out of memory{even} ({given}); lower input_size, or take a smaller "
            "backbone or a device with more memory"
        )


def _train(run: _Run, workspace: Workspace, fabric: Fabric) -> None:
    config, settings, ranks = run.config, run.config.training, run.ranks
    torch.set_num_threads(settings.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # fixed order of sums on a GPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    release_memory(fabric.device)

    # Data and model.
    model, rows, validation = ranks.together(lambda: _prepare(run, workspace, fabric.device))
    if settings.speed.compile:
        model.compile_trunk()
    if settings.speed.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = _optimiser(settings, model)
    wrapped, optimiser = fabric.setup(model if ranks.world == 1 else Shared(model), optimiser)
    stream = TrainingStream(
        rows,
        settings.batch_size,
        seed=config.seed,
        settings=settings.augmentation,
        length=settings.length,
        balanced=settings.balanced,
        rank=ranks.rank,
        world=ranks.world,
    )
    _check_batches(config, stream, model)
    ends = period_ends(settings, stream.steps_per_epoch)
    trainer = Trainer(
        config, model, wrapped, optimiser, fabric, stream, total=ends[-1], ranks=ranks
    )

    # Epochs.
    progress = load_progress(run.state, run.id, model, optimiser)
    if len(set(ranks.gather(progress.epoch))) > 1:
        raise InputError(f"{run.folder}: not all nodes see the same files in it; share the store")
    trainer.parts = progress.parts
    renew_scaler(fabric.strategy.precision, progress.scaler)
    if progress.epoch:
        run.tell(f"goes on after epoch {progress.epoch} of {len(ends)}")
    with progress_display() as display:
        task = display.add_task(
            f"{config.backbone} seed {config.seed}", total=ends[-1], note="",
            completed=ends[progress.epoch - 1] if progress.epoch else 0,
        )  # fmt: skip
        for epoch in range(progress.epoch, len(ends)):
            started = time.monotonic()
            start = ends[epoch - 1] if epoch else 0
            while True:
                found = _attempt(trainer, epoch, start, ends[epoch], partial(display.advance, task))
                if found is not None:
                    break
                _divide(run, trainer, workspace, epoch)
                display.update(task, completed=start)
            metrics = {"epoch": epoch + 1.0} | found
            ranks.first(partial(_check_loss, run, metrics))
            measure = partial(
                validate, model, validation, wrapped, ranks, config.validation_negatives
            )
            metrics |= _validated(run, epoch, measure)
            score = _score(settings, metrics, validation)
            if score >= progress.best_score or progress.best_epoch < 0:  # ties: the later epoch
                progress.best_score, progress.best_epoch = score, epoch
                progress.best_state = snapshot(model) if ranks.leads else {}
            seconds = time.monotonic() - started
            progress.seconds += seconds
            progress.history.append(metrics)
            progress.epoch, progress.parts = epoch + 1, trainer.parts
            progress.scaler = scaler_state(fabric.strategy.precision)
            line = _line(metrics, validation, len(ends), metrics["images"] / seconds)
            run.tell(line)
            display.update(task, note=line)
            ranks.first(partial(_keep, run, progress, model, optimiser))
            watchdog.beat()

    # The kept epoch, and what the run leaves.
    peaks = [peak for peak in ranks.gather(peak_memory(fabric.device)) if peak is not None]
    record = {
        "id": run.id,
        "config": config.model_dump(mode="json"),
        "classes": list(model.spec.classes),
        "input_size": model.spec.input_size,
        "grid": list(rows.grid),
        "saliency": model.spec.cam,
        "training_images": len(rows),
        "guided_images": int((rows.guides.weight > 0).sum()) if rows.guides else 0,
        "soft_labelled_images": 0
        if rows.soft is None
        else int((~np.isnan(rows.soft)).all(1).sum()),
        "uninformative_maps": int(max(row["uninformative"] for row in progress.history))
        if rows.guides
        else 0,
        "images_seen": int(sum(row["images"] for row in progress.history)),
        "best_epoch": progress.best_epoch + 1,
        "metrics": progress.history[progress.best_epoch],
        "seconds": round(progress.seconds, 3),
        **({"parts": progress.parts} if progress.parts > 1 else {}),
        **({"peak_memory": max(peaks)} if peaks else {}),
        **({"device_memory": room} if (room := device_memory(fabric.device)) else {}),
        "device": str(fabric.device),
        "versions": _versions(),
    }
    lines = [_line(row, validation, len(ends), None) for row in progress.history]

    def leave() -> None:
        model.load_state_dict(progress.best_state)
        _check_maps(run, model)
        write_atomically(run.folder / "metrics.csv", _table(progress.history))
        # In 32-true, as test sets are scored: a threshold must not depend on the precision.
        scores = score_frame(model, workspace, workspace.split_rows("val"), settings.cache)
        run.check()
        scores.to_parquet(run.folder / "scores.parquet", index=False)
        save_model(model, run.folder / "model", fixed_thresholds(scores, model.spec.positive))
        write_atomically(run.folder / "config.yaml", dump_config(config))
        write_atomically(run.folder / "log.txt", "\n".join(lines) + "\n")
        run.check()
        finish(run.folder, record, without=run.state.name)
        run.state.unlink(missing_ok=True)

    ranks.first(leave)


def _prepare(
    run: _Run, workspace: Workspace, device: torch.device
) -> tuple[GuidableModel, Rows, dict[str, Rows]]:
    """The untrained model, the training rows and the validation sets."""
    config, ranks = run.config, run.ranks
    torch.manual_seed(_derived(config.seed, -1))
    model = build(workspace, config)
    if ranks.world > 1:
        synchronise(model, device, config.backbone)
    rows = guided_rows(workspace, config, model)
    if len(rows) < ranks.world:
        raise InputError(
            f"{config.manifest}: {len(rows)} training images are fewer than the {ranks.world} "
            "devices that share a batch; lower training.devices"
        )
    problems = selection_problems(workspace.manifest, config.validation_negatives)
    if problems and (config.training.checkpoint == "best_auc" or config.validation_negatives):
        raise InputError(f"{config.manifest}: {problems[0]}")
    return model, rows, validation_sets(workspace, model, config.training.cache)


def _check_batches(config: RunConfig, stream: TrainingStream, model: GuidableModel) -> None:
    """Refuse batches of one image for a network with batch norm: their variance is 0 or NaN."""
    if stream.sizes[0] < 2 and has_batch_norm(model):
        raise InputError(
            f"training: batch_size is 1, and the batch norm of {config.backbone} needs 2 images a "
            "batch; raise batch_size, or take a backbone without batch norm"
        )


def _attempt(
    trainer: Trainer, epoch: int, start: int, stop: int, advance: Callable[[], None]
) -> dict[str, float] | None:
    """An epoch's metrics; None where memory ran out, and the model is anywhere within the epoch."""
    torch.manual_seed(_derived(trainer.config.seed, epoch, trainer.ranks.rank))
    try:
        return trainer.epoch(epoch, start, stop, advance)
    except (MemoryError, OSError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    return None  # the error is gone by now, and with it what its frames held


def _divide(run: _Run, trainer: Trainer, workspace: Workspace, epoch: int) -> None:
    """Go back to the start of an epoch, whose batches are then computed in more parts."""
    largest = trainer.stream.sizes[-1]
    parts = more_parts(trainer.parts, largest, trainer.least)
    if parts is None or not run.alone or run.ranks.world > 1:
        raise run.out_of_memory(math.ceil(largest / trainer.parts))
    trainer.parts = parts
    trainer.optimiser.zero_grad(set_to_none=True)
    gc.collect()
    release_memory(trainer.fabric.device)
    if not epoch:
        torch.manual_seed(_derived(run.config.seed, -1))
        trainer.model.load_state_dict(build(workspace, run.config).state_dict())
        groups = trainer.optimiser.state_dict()["param_groups"]
        trainer.optimiser.load_state_dict({"state": {}, "param_groups": groups})
    before = load_progress(run.state, run.id, trainer.model, trainer.optimiser)
    if before.epoch != epoch:
        raise RunFailedError(f"run {run.id}: {run.state} was changed by someone else")
    renew_scaler(trainer.fabric.strategy.precision, before.scaler)
    run.tell(f"out of memory in epoch {epoch + 1}: each batch is now computed in {parts} parts")


def _check_loss(run: _Run, metrics: dict[str, float]) -> None:
    if not math.isfinite(metrics["loss"]):
        raise RunFailedError(
            f"run {run.id}: the loss is {metrics['loss']} in epoch {metrics['epoch']:.0f}: it "
            "diverged; a smaller lr or `clip` may help"
        )


def _check_maps(run: _Run, model: GuidableModel) -> None:
    """Leave no model whose maps are not what its logits are made of."""
    try:
        check_trained(model)
    except InputError as error:
        raise RunFailedError(
            f"run {run.id}: after training its maps no longer add up to its logits: {error}; take "
            "another backbone"
        ) from error


def _validated(run: _Run, epoch: int, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What is measured after an epoch; where the last steps diverged, the loss cannot tell yet."""
    try:
        return measure()
    except NotANumberError as error:
        raise RunFailedError(
            f"run {run.id}: after epoch {epoch + 1}, {error}: it diverged; a smaller lr or `clip` "
            "may help"
        ) from error


def _keep(
    run: _Run, progress: Progress, model: GuidableModel, optimiser: torch.optim.Optimizer
) -> None:
    """Write where the run stands after an epoch."""
    run.check()
    save_progress(run.state, run.id, progress, model, optimiser)
    write_atomically(run.folder / "metrics.csv", _table(progress.history), flush=False)


def _table(history: list[dict[str, float]]) -> str:
    """The content of metrics.csv: a row an epoch."""
    text: str = pd.DataFrame(history).to_csv(index=False, float_format="%.6g")
    return text


def _optimiser(settings: Training, model: torch.nn.Module) -> torch.optim.Optimizer:
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _score(settings: Training, metrics: dict[str, float], sets: dict[str, Rows]) -> float:
    """What decides which epoch is kept: the worst validation set counts."""
    if settings.checkpoint == "last":
        return metrics["epoch"]
    kind = settings.checkpoint.removeprefix("best_")
    return min(metrics[f"{name}_{kind}"] for name in sets)


def _line(metrics: dict[str, float], sets: dict[str, Rows], epochs: int, rate: float | None) -> str:
    parts = [f"epoch {int(metrics['epoch'])}/{epochs}", f"class {metrics['classification']:.3f}"]
    if math.isfinite(metrics["guidance"]):
        parts.append(f"guide {metrics['guidance']:.3f} (map r {metrics['map_correlation']:.2f})")
    parts += [f"{name} AUC {metrics[f'{name}_auc']:.3f}" for name in sets]
    if rate is not None:
        parts.append(f"{rate:,.0f} images/s")
    return "  ".join(parts)


def _derived(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed for torch that differs between epochs, seeds and processes."""
    text = f"{seed} {epoch} {rank}" if rank else f"{seed} {epoch}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


def _versions() -> dict[str, str]:
    import timm
    import torchvision

    return {
        "preceptor": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
