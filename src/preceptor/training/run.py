"""Training of one run: one model with one seed.

The order of the file is that of a run: prepare data and model, train and validate each epoch, keep
the best, score the validation sets, write the run folder. All random numbers are a function of
(seed, epoch), so that an interrupted run resumes at its last epoch and gives bit-identical results.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
import torchvision

from preceptor.config.files import dump_config
from preceptor.config.run import MapSource, RunConfig
from preceptor.config.training import Training
from preceptor.data.cache import Features
from preceptor.data.loader import Rows, TrainingStream
from preceptor.data.notes import selection_problems
from preceptor.data.swaps import shuffled
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, ProblemsError, RunFailedError, reason
from preceptor.inference.predict import score_frame, to_device, with_scores
from preceptor.losses.guidance import Guidance
from preceptor.maps.marked import read_marked
from preceptor.metrics.scores import fixed_thresholds
from preceptor.models.build import load_model, save_model, with_pool
from preceptor.models.features import has_batch_norm
from preceptor.models.guided_model import GuidedModel
from preceptor.models.networks import head_in
from preceptor.models.probes import check_trained
from preceptor.training.last_layer import (
    MOST_REPAIRED,
    check_images,
    check_last_layer,
    clean_sets,
    repaired,
    with_last_layer_trained,
)
from preceptor.training.loop import RunContext, Trainer, derived_seed, fit, new_optimizer
from preceptor.training.prepare import (
    build,
    guided_rows,
    image_formats,
    method_of,
    run_id_of,
    trained_part,
)
from preceptor.training.record import (
    Progress,
    RunRecord,
    epoch_line,
    flat_metrics,
    lowest_auc,
    metrics_table,
    restore,
)
from preceptor.training.validation import (
    MOST_SWAPPED,
    best_readout,
    check_readout,
    swapped_set,
    validate,
    validation_sets,
)
from preceptor.utils import process
from preceptor.utils.files import failed_write, remove_unfinished
from preceptor.utils.leases import holder_of, lease
from preceptor.utils.process import (
    device_memory,
    fix_order_of_sums,
    kept_torch_state,
    out_of_memory,
    peak_memory,
    release_memory,
)
from preceptor.utils.results import is_finished, write_atomically
from preceptor.version import __version__


@dataclass(frozen=True)
class RunResult:
    """Finished run."""

    folder: Path
    id: str
    record: RunRecord
    trained: bool = True  # whether the run was trained in this call, and not taken from the store


def train(
    config: RunConfig,
    store: str | Path = "runs",
    *,
    workspace: Workspace | None = None,
    tell: Callable[[str], None] | None = None,
    tell_epoch: Callable[[str], None] | None = None,
    wait: float | None = None,
    expected_id: str | None = None,
) -> RunResult:
    """Train one model, unless the store contains the finished run of the same config and data.

    Args:
        config: Config of the run.
        store: Folder of run folders; the run is written to `store/<id>`.
        workspace: Opened manifest, which may be used for many runs; None = opened and checked here.
        tell: Function that receives messages.
        tell_epoch: Function that receives a summary line after each epoch; None = `tell`.
        wait: Maximum time in seconds to wait for another process that trains the same run; None =
            unlimited.
        expected_id: Id of the run when it was planned; None = unknown.

    Returns:
        The finished run.

    Raises:
        InputError: The config or the data is invalid, or the run has another id than expected.
        RunFailedError: The loss became NaN or infinite, or memory or the disk is full.
        HeldError: Another process trains the same run.
        LeaseLostError: Another process took over the run while this one was suspended.
    """
    try:
        formats = image_formats(config)
        workspace = workspace or Workspace.open(config.manifest, verify=True, formats=formats)
    except (OSError, MemoryError) as error:
        raise RunFailedError(f"run of {config.manifest}: {reason(error)}") from error
    if expected_id is None:  # outside a study, files may have changed since the last run
        workspace.file_digest.cache_clear()
        workspace.folder_digest.cache_clear()
    identity = run_id_of(workspace, config)
    if expected_id not in (None, identity):  # the plan would not find its folder
        raise InputError(
            "maps, weights or code that it uses have changed since the study was started; start it "
            "again"
        )
    folder = Path(store) / identity
    if wait is None and tell and (who := holder_of(folder)):
        tell(f"run {identity}: process {who.pid} on {who.host} trains it; waiting for its end")
    with lease(folder, wait=wait) as held:
        remove_unfinished(folder)
        if there := is_finished(folder):  # the last process may have been killed before it did this
            (folder / "resume.safetensors").unlink(missing_ok=True)
        process.beat()
        if not there:
            tell = tell or (lambda line: None)
            run = RunContext(config, folder, held, tell, tell_epoch or tell)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with kept_torch_state():
                    _compute(run, workspace, training_device(config.training))
            except (OSError, MemoryError, RuntimeError) as error:
                if out_of_memory(error):
                    size, batch = config.training.input_size, config.training.batch_size
                    given = f"batch_size {batch}" + (f", input_size {size}" if size else "")
                    raise RunFailedError(
                        f"run {identity}: out of memory ({given}); lower one of them, or take a "
                        "smaller backbone or a device with more memory"
                    ) from error
                if not isinstance(error, OSError):
                    raise
                raise RunFailedError(f"run {identity}: {failed_write(error, folder)}") from error
        return RunResult(folder, identity, RunRecord.read(folder), not there)


def training_device(settings: Training) -> torch.device:
    """Device of the trainings: the first GPU, or the CPU."""
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise InputError("training.device is cuda, and torch finds no GPU; set it to auto or cpu")
    if settings.device != "cpu" and there:
        return torch.device("cuda", 0)
    if settings.precision == "16-mixed":
        raise InputError(
            "training.precision is 16-mixed, which a CPU does not support; set it to bf16-mixed or "
            "32-true, or use a GPU"
        )
    return torch.device("cpu")


def _compute(run: RunContext, workspace: Workspace, device: torch.device) -> None:
    """Train the run and write its folder."""
    config = run.config
    torch.set_num_threads(config.training.threads)
    fix_order_of_sums()
    torch.use_deterministic_algorithms(True, warn_only=True)
    if config.last_layer is not None or config.swaps is not None:
        _compute_last_layer(run, workspace, device)
        return
    release_memory(device)
    model, rows, validation = _prepare(run, workspace)
    if config.training.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = model.to(device)
    trained, taken, scored = trained_part(config, workspace, model, rows, validation, run.tell)
    trainer = _trainer(config, device, trained, taken)
    reference = partial(_reference, config, workspace, model, device, taken.features)
    progress = fit(run, trainer, scored, reference)
    record = _record(run, model, rows, progress, device)
    restore(trained, progress.best_state)
    restore(model, progress.best_state)
    try:
        check_trained(model)
    except InputError as error:
        raise RunFailedError(
            f"run {run.id}: after training, the maps no longer add up to the logits: {error}; use "
            "another backbone"
        ) from error
    if config.training.readout == "auto":
        read = best_readout(trained, scored, config.validation_negatives)
        if read is not trained:  # the metrics of an epoch are those of the model's own pooling
            record = replace(record, metrics=record.metrics | _metrics(config, read, scored))
        model = with_pool(model, read.spec.pool)
    log = "".join(f"{epoch_line(row, len(progress.history))}\n" for row in progress.history)
    tables = {"metrics.csv": metrics_table(progress.history), "log.txt": log}
    _write(run, workspace, model, tables, record)


def _compute_last_layer(run: RunContext, workspace: Workspace, device: torch.device) -> None:
    """Train the last layer again, after the run without it, and write both."""
    config, cache = run.config, run.config.training.cache
    if (name := config.last_layer) is not None:
        try:
            check_images(workspace.manifest, name)
        except InputError as error:
            raise InputError(f"last_layer: {error}") from error
        check_last_layer(build_untrained(workspace, config))
    base = train(
        config.model_copy(update={"last_layer": None, "swaps": None}),
        run.folder.parent,
        workspace=workspace,
        tell=run.tell,
        tell_epoch=run.tell_epoch,
    )
    started = time.perf_counter()
    model = load_model(base.folder / "model").to(device)
    validation = validation_sets(workspace, model, cache)
    if config.swaps is not None:
        model = _repaired(run, config.swaps, workspace, model)
    if name is not None:
        model = with_last_layer_trained(model, validation[name].without_maps())
    if config.training.readout == "auto":
        model = best_readout(model, validation, config.validation_negatives)
    record = replace(
        base.record,
        id=run.id,
        config=config.model_dump(mode="json"),
        metrics=base.record.metrics | _metrics(config, model, validation),
        epoch_aucs=None,
        seconds=round(time.perf_counter() - started, 3),
    )
    names = ("metrics.csv", "log.txt")
    tables = {name: (base.folder / name).read_text(encoding="utf-8") for name in names}
    _write(run, workspace, model, tables, record)


def _repaired(
    run: RunContext, source: MapSource, workspace: Workspace, model: GuidedModel
) -> GuidedModel:
    """The model with its last layer trained on swapped training images, by a Teacher's maps; the
    model itself if the maps leave nothing to swap.
    """
    seed = run.config.seed
    manifest, form, classes = workspace.manifest, model.spec.image_format, model.spec.classes
    how: dict[str, Any] = {"maps": source.path, "most": MOST_REPAIRED, "seed": seed}
    try:
        marked = read_marked(manifest, form, classes, splits=["train"], **how)
    except ProblemsError as error:
        run.tell(f"repair: the last layer stays as it is: {error}")
        return model
    images, held, units = marked.images, None, None
    if source.shuffle_seed is not None:
        images = shuffled(images, source.shuffle_seed)
    # Clean labels, if there are any, select among runs. The penalty takes none.
    clean = clean_sets(manifest)
    if own := [one for one in manifest.eval_splits("val") if one not in clean]:
        with contextlib.suppress(ProblemsError):  # too few marks: three folds of training images
            found = read_marked(manifest, form, classes, splits=own, most=MOST_SWAPPED)
            held, units = found.images, found.units
    new = repaired(
        model, images, held, seed=seed, train_groups=marked.units, validation_groups=units
    )
    return new.model


def _metrics(config: RunConfig, model: GuidedModel, sets: dict[str, Rows]) -> dict[str, float]:
    """Metrics of a finished model on the validation sets."""
    return flat_metrics(
        validate(model, sets, model, config.validation_negatives, config.guided_map)
    )


def _prepare(run: RunContext, workspace: Workspace) -> tuple[GuidedModel, Rows, dict[str, Rows]]:
    """Initial model, training rows and validation sets."""
    config = run.config
    model = build_untrained(workspace, config)
    own = config.weights not in ("hub", "none") and config.weights_identity is None
    if own and head_in(config.weights, model.backbone):
        outputs = ", ".join(model.spec.classes)
        run.tell(f"the head of {config.weights} is kept: its outputs count as {outputs}")
    if config.training.readout == "auto":
        check_readout(model)
    rows = guided_rows(workspace, config, model)
    if rows.targets is not None and rows.targets.unmatched:
        run.tell(
            f"maps: {config.maps.path} has no map of {rows.targets.unmatched:,} of {len(rows):,} "
            "training images; no map guides these"
        )
    problems = selection_problems(workspace.manifest, config.validation_negatives)
    by_auc = config.training.checkpoint == "best_auc" or config.training.readout == "auto"
    if problems and (by_auc or config.validation_negatives):
        raise InputError(f"{config.manifest}: {problems[0]}")
    return model, rows, validation_sets(workspace, model, config.training.cache)


def build_untrained(workspace: Workspace, config: RunConfig) -> GuidedModel:
    """Initial model, with the same weights in every call."""
    torch.manual_seed(derived_seed(config.seed, -1))
    return build(workspace, config)


def _trainer(config: RunConfig, device: torch.device, model: GuidedModel, rows: Rows) -> Trainer:
    """Trainer with model, optimizer and batches."""
    settings = config.training
    method = method_of(settings) if config.guided else None
    stream = _stream(config, device, rows, method)
    if stream.sizes[0] < 2 and has_batch_norm(model):  # the variance of one image is 0
        raise InputError(
            f"training: batch_size is 1, and the batch norm of {config.backbone} needs 2 images "
            "per batch; raise batch_size, or use a backbone without batch norm"
        )
    layers = None
    if method is not None:
        torch.manual_seed(derived_seed(config.seed, -2))
        first = next(stream.steps(0, 1)).images
        layers = method.prepare(
            model, model.preprocess(to_device(first, device, settings.channels_last))
        )
    weights = [*model.parameters(), *(layers.parameters() if layers else ())]
    optimizer = new_optimizer(settings, weights)
    return Trainer(config, model, optimizer, stream, method, layers)


def _stream(
    config: RunConfig, device: torch.device, rows: Rows, method: Guidance | None
) -> TrainingStream:
    """Batches of a run."""
    settings = config.training
    return TrainingStream(
        rows,
        settings.batch_size,
        seed=config.seed,
        settings=settings.augmentation,
        length=settings.length,
        balanced=settings.balanced,
        device=device,
        in_input=method is not None and "map_input" in method.needs,
    )


def _reference(
    config: RunConfig,
    workspace: Workspace,
    model: GuidedModel,
    device: torch.device,
    features: Features | None,
) -> TrainingStream:
    """Batches of the training images with one centered map, by which λ is measured."""
    centred = config.model_copy(update={"maps": MapSource(kind="centre"), "guide_classes": None})
    rows = replace(guided_rows(workspace, centred, model), features=features)
    return _stream(centred, device, rows, method_of(config.training))


def _record(
    run: RunContext, model: GuidedModel, rows: Rows, progress: Progress, device: torch.device
) -> RunRecord:
    """Record of a run after its last epoch."""
    guided, history = run.config.guided, progress.history
    return RunRecord(
        id=run.id,
        config=run.config.model_dump(mode="json"),
        classes=tuple(model.spec.classes),
        input_size=model.spec.input_size,
        grid=rows.grid,
        saliency=model.spec.cam,
        training_images=len(rows),
        guided_images=int((rows.targets.weight > 0).sum()) if guided and rows.targets else 0,
        uninformative_maps=int(max(row["uninformative"] for row in history)) if guided else 0,
        images_seen=int(sum(row["images"] for row in history)),
        best_epoch=progress.best_epoch + 1,
        metrics=history[progress.best_epoch],
        epoch_aucs=(lowest_auc(history[progress.best_epoch]), lowest_auc(history[-1])),
        seconds=round(progress.seconds, 3),
        peak_memory=peak_memory(device),
        device_memory=device_memory(device) or None,
        device=str(device),
        guidance_scale=progress.scale,
        versions={
            "preceptor": __version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        },
    )


def _write(
    run: RunContext,
    workspace: Workspace,
    model: GuidedModel,
    tables: dict[str, str],
    record: RunRecord,
) -> None:
    """Write the run folder: tables, scores of the validation sets, model; run.json last."""
    folder = run.folder
    # In 32-true, as test sets are scored: a threshold must not depend on the precision.
    rows = workspace.split_rows("val")
    scores = score_frame(model, workspace, rows, run.config.training.cache)
    detects = model.spec.image_classes is not None
    form, classes = model.spec.image_format, model.spec.classes
    if detects and (swapped := swapped_set(workspace, form, classes)) is not None:
        scores = pd.concat([scores, with_scores(model, *swapped)], ignore_index=True)
    thresholds = fixed_thresholds(scores, model.spec.positive) if detects else {}
    run.held.check()
    scores.to_parquet(folder / "scores.parquet", index=False)
    save_model(model, folder / "model", thresholds)
    write_atomically(folder / "config.yaml", dump_config(run.config))
    for name, text in tables.items():
        write_atomically(folder / name, text)
    run.held.check()
    record.write(folder, without=run.state.name)
    run.state.unlink(missing_ok=True)
