"""One run: one model trained with one seed; also `python -m preceptor.training CONFIG`.

Reads top to bottom: prepare data and model, for each epoch train and validate, keep the best,
score the validation sets, write the run folder. Everything random is a function of (seed, epoch),
so a run that was interrupted goes on from its last epoch and ends with the same bits.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError

from preceptor.config.run import RunConfig, Training
from preceptor.config.yaml_file import dump_config
from preceptor.data.complete_sets import selection_problems
from preceptor.data.loader import Rows, TrainingStream
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, RunFailedError
from preceptor.evaluation.scores import fixed_thresholds
from preceptor.inference.score import score_frame
from preceptor.models.build import save_model
from preceptor.models.guided_model import GuidableModel
from preceptor.models.probes import check_trained
from preceptor.models.sync_batch_norm import has_batch_norm, synchronise
from preceptor.runtime import watchdog
from preceptor.runtime.leases import Lease, lease
from preceptor.runtime.memory import device_memory, out_of_memory, peak_memory, release_memory
from preceptor.runtime.result_folder import is_finished, write_atomically
from preceptor.training.checkpoint import Progress
from preceptor.training.context import RunContext
from preceptor.training.distributed import Ranks, Shared, make_fabric
from preceptor.training.loop import Trainer, derived_seed, epoch_line, fit, metrics_table
from preceptor.training.prepare import build, guided_rows, image_formats, run_id_of
from preceptor.training.record import RunRecord
from preceptor.training.validation import validation_sets
from preceptor.version import __version__


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        folder: The run folder.
        id: The run's id.
        record: What it records of itself.
        trained: Whether it was trained now, and not taken from the store.
    """

    folder: Path
    id: str
    record: RunRecord
    trained: bool = True


def train(
    config: RunConfig,
    store: str | Path = "runs",
    *,
    workspace: Workspace | None = None,
    tell: Callable[[str], None] | None = None,
    tell_epoch: Callable[[str], None] | None = None,
    wait: float | None = None,
    exclusive: bool = True,
    ranks: Ranks | None = None,
    fabric: Fabric | None = None,
) -> RunResult:
    """Train one model, or take the finished run of the same config and data from the store.

    Args:
        config: The run; on one device, unless `ranks` is given.
        store: Folder of run folders; the run goes to `store/<id>`.
        workspace: The manifest, opened once for many runs; None reads and checks it here.
        tell: Receives messages.
        tell_epoch: Receives a summary line after each epoch; None = `tell` does.
        wait: Seconds to wait where another process trains the same run; None = until it ends.
        exclusive: Whether no other step uses the device: only then a training that runs out of
            memory continues with smaller parts of a batch.
        ranks, fabric: This process's part of a run on several devices, from `distributed.join`;
            None = the only process.

    Returns:
        The finished run.

    Raises:
        InputError: The config or the data cannot be used.
        RunFailedError: The loss became NaN or infinite, or memory or the disk is full.
        DeviceFullError: Memory ran out, and the device is shared.
        HeldError: Another process trains the same run.
        LeaseLostError: Another process took it over while this one was asleep.
        RelayedError: Another process of the run failed, and has told why.
    """
    if config.training.processes > 1 and ranks is None:
        raise InputError(
            f"training: devices × nodes is {config.training.processes}, and a run on several "
            "devices is a command of its own, started as python -m preceptor.training CONFIG"
        )
    ranks = ranks or Ranks()
    held: Lease | None = None
    with contextlib.ExitStack() as stack:

        def begin() -> tuple[Path, bool]:
            nonlocal workspace, held
            workspace = workspace or Workspace.open(
                config.manifest, verify=True, formats=image_formats(config)
            )
            folder = Path(store) / run_id_of(workspace, config)
            held = stack.enter_context(lease(folder, wait=wait))
            return folder, is_finished(folder)

        folder, there = ranks.first(begin)
        watchdog.beat()
        if not there:
            tell = tell or (lambda line: None)
            run = RunContext(config, folder, ranks, held, tell, tell_epoch or tell, exclusive)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                workspace = workspace or Workspace.open(config.manifest)
                _compute(run, workspace, fabric or make_fabric(config.training))
            except (OSError, SafetensorError, MemoryError, RuntimeError) as error:
                if out_of_memory(error):
                    raise run.out_of_memory() from error
                if isinstance(error, RuntimeError):
                    raise
                reason = getattr(error, "strerror", None) or str(error)
                raise RunFailedError(f"run {folder.name}: {reason}") from error
        return RunResult(
            folder, folder.name, ranks.first(lambda: RunRecord.read(folder)), not there
        )


def _compute(run: RunContext, workspace: Workspace, fabric: Fabric) -> None:
    """Train the run and write its folder."""
    config, settings, ranks = run.config, run.config.training, run.ranks
    torch.set_num_threads(settings.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # fixed order of sums on a GPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    release_memory(fabric.device)

    model, rows, validation = ranks.together(lambda: _prepare(run, workspace, fabric.device))
    trainer = _trainer(run, fabric, model, rows)
    progress = fit(run, trainer, validation, lambda: build_untrained(workspace, config))
    peaks = [peak for peak in ranks.gather(peak_memory(fabric.device)) if peak is not None]
    record = _record(run, model, rows, progress, fabric.device, max(peaks, default=None))
    ranks.first(lambda: _write(run, workspace, model, progress, record))


def _trainer(run: RunContext, fabric: Fabric, model: GuidableModel, rows: Rows) -> Trainer:
    """The model with its optimiser and this process's share of the batches."""
    config, settings, ranks = run.config, run.config.training, run.ranks
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
        device=fabric.device,
    )
    _check_batches(config, stream, model)
    return Trainer(config, model, wrapped, optimiser, fabric, stream, ranks=ranks)


def _record(
    run: RunContext,
    model: GuidableModel,
    rows: Rows,
    progress: Progress,
    device: torch.device,
    peak: int | None,
) -> RunRecord:
    """The record of a run whose last epoch is done."""
    return RunRecord(
        id=run.id,
        config=run.config.model_dump(mode="json"),
        classes=tuple(model.spec.classes),
        input_size=model.spec.input_size,
        grid=rows.grid,
        saliency=model.spec.cam,
        training_images=len(rows),
        guided_images=int((rows.guides.weight > 0).sum()) if rows.guides else 0,
        soft_labelled_images=(0 if rows.soft is None else int((~np.isnan(rows.soft)).all(1).sum())),
        uninformative_maps=(
            int(max(row["uninformative"] for row in progress.history)) if rows.guides else 0
        ),
        images_seen=int(sum(row["images"] for row in progress.history)),
        best_epoch=progress.best_epoch + 1,
        metrics=progress.history[progress.best_epoch],
        seconds=round(progress.seconds, 3),
        parts=progress.parts,
        peak_memory=peak,
        device_memory=device_memory(device) or None,
        device=str(device),
        versions=_versions(),
    )


def _write(
    run: RunContext,
    workspace: Workspace,
    model: GuidableModel,
    progress: Progress,
    record: RunRecord,
) -> None:
    """Write the run folder from the kept epoch, run.json last."""
    model.load_state_dict(progress.best_state)
    _check_maps(run, model)
    write_atomically(run.folder / "metrics.csv", metrics_table(progress.history))
    # In 32-true, as test sets are scored: a threshold must not depend on the precision.
    cache = run.config.training.cache
    scores = score_frame(model, workspace, workspace.split_rows("val"), cache)
    run.check()
    scores.to_parquet(run.folder / "scores.parquet", index=False)
    save_model(model, run.folder / "model", fixed_thresholds(scores, model.spec.positive))
    write_atomically(run.folder / "config.yaml", dump_config(run.config))
    lines = [epoch_line(row, len(progress.history)) for row in progress.history]
    write_atomically(run.folder / "log.txt", "\n".join(lines) + "\n")
    run.check()
    record.write(run.folder, without=run.state.name)
    run.state.unlink(missing_ok=True)


def _prepare(
    run: RunContext, workspace: Workspace, device: torch.device
) -> tuple[GuidableModel, Rows, dict[str, Rows]]:
    """The untrained model, the training rows and the validation sets."""
    config, ranks = run.config, run.ranks
    model = build_untrained(workspace, config)
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


def build_untrained(workspace: Workspace, config: RunConfig) -> GuidableModel:
    """The model before the first step, the same weights in every call."""
    torch.manual_seed(derived_seed(config.seed, -1))
    return build(workspace, config)


def _check_batches(config: RunConfig, stream: TrainingStream, model: GuidableModel) -> None:
    """Refuse batches of one image for a network with batch norm: their variance is 0 or NaN."""
    if stream.sizes[0] < 2 and has_batch_norm(model):
        raise InputError(
            f"training: batch_size is 1, and the batch norm of {config.backbone} needs 2 images a "
            "batch; raise batch_size, or take a backbone without batch norm"
        )


def _check_maps(run: RunContext, model: GuidableModel) -> None:
    """Leave no model whose maps are not what its logits are made of."""
    try:
        check_trained(model)
    except InputError as error:
        raise RunFailedError(
            f"run {run.id}: after training its maps no longer add up to its logits: {error}; take "
            "another backbone"
        ) from error


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
