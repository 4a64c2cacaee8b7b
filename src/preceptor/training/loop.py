"""Training loop: resume, then for each epoch train, validate, keep the best, save.

`fit` is the loop over epochs, `Trainer.epoch` the loop over steps, `Trainer.step` one step with
gradient accumulation. A step does not synchronize with the device.
"""

from __future__ import annotations

import gc
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from preceptor.config.guidance import takes_masks
from preceptor.config.run import RunConfig
from preceptor.data.loader import Batch, Rows, TrainingStream
from preceptor.errors import RunFailedError
from preceptor.inference.predict import to_device
from preceptor.losses.consistency import inconsistency
from preceptor.losses.distillation import SoftTargets
from preceptor.losses.guided import Targets, balanced_alpha, combine, guided_loss_terms
from preceptor.models.features import has_batch_norm
from preceptor.models.guided_model import GuidedModel
from preceptor.models.precision import gradient_scaler, in_precision
from preceptor.runtime import watchdog
from preceptor.runtime.memory import out_of_memory, release_memory
from preceptor.runtime.progress import progress as progress_display
from preceptor.runtime.result_folder import write_atomically
from preceptor.training.checkpoint import Progress, load_progress, save_progress, snapshot
from preceptor.training.context import RunContext
from preceptor.training.epoch_metrics import epoch_line, epoch_score, mean_metrics, metrics_table
from preceptor.training.micro_batches import in_parts, more_parts
from preceptor.training.record import SetMetrics, flat_metrics
from preceptor.training.schedules import learning_rate, period_ends
from preceptor.training.step_stats import StepStats
from preceptor.training.validation import NotANumberError, validate


def fit(
    run: RunContext,
    trainer: Trainer,
    validation: dict[str, Rows],
    untrained: Callable[[], GuidedModel],
) -> Progress:
    """Train all remaining epochs, and keep the weights of the best one.

    Args:
        run: Run, whose checkpoint is `run.state`.
        trainer: Trainer with model and batches.
        validation: Validation sets by name.
        untrained: Function that builds the initial model, for a first epoch that is repeated.

    Returns:
        History and best weights.
    """
    config, model = run.config, trainer.model
    ends = trainer.ends

    # Resume.
    progress = load_progress(run.state, run.id, model, trainer.optimizer)
    trainer.parts = progress.parts
    trainer.reset_scaler(progress.scaler)
    if progress.epoch:
        run.tell(f"resumed after epoch {progress.epoch} of {len(ends)}")

    with progress_display() as display:
        task = display.add_task(
            f"{config.backbone} seed {config.seed}",
            total=ends[-1],
            note="",
            completed=ends[progress.epoch - 1] if progress.epoch else 0,
        )
        for epoch in range(progress.epoch, len(ends)):
            started = time.monotonic()
            start = ends[epoch - 1] if epoch else 0

            # Train; an epoch that runs out of memory is repeated with micro-batches.
            advance = partial(display.advance, task)
            while (found := _attempt(trainer, epoch, start, ends[epoch], advance)) is None:
                _divide(run, trainer, untrained, epoch)
                display.update(task, completed=start)
            metrics = {"epoch": epoch + 1.0} | found
            _check_loss(run, metrics)

            # Validate, and keep the best epoch: ties go to the later one.
            measured = _validated(run, trainer, validation, epoch)
            metrics |= flat_metrics(measured)
            score = epoch_score(config.training, epoch, measured)
            if score >= progress.best_score or progress.best_epoch < 0:
                progress.best_score, progress.best_epoch = score, epoch
                progress.best_state = snapshot(model)

            # Checkpoint.
            seconds = time.monotonic() - started
            progress.seconds += seconds
            progress.history.append(metrics)
            progress.epoch, progress.parts = epoch + 1, trainer.parts
            progress.scaler = trainer.scaler.state_dict()
            line = epoch_line(metrics, len(ends), metrics["images"] / seconds)
            _keep(run, progress, trainer)
            run.tell_epoch(line)  # an epoch that was reported is never repeated
            display.update(task, note=line)
            watchdog.beat()
    return progress


class Trainer:
    """Trainer of epochs.

    Args:
        config: Config of the run.
        model: Model to be saved.
        optimizer: Optimizer of its parameters.
        stream: Batches, on the device of the training.
        parts: Number of micro-batches per batch; may be changed between epochs.
    """

    def __init__(
        self,
        config: RunConfig,
        model: GuidedModel,
        optimizer: torch.optim.Optimizer,
        stream: TrainingStream,
        *,
        parts: int = 1,
    ) -> None:
        self.config, self.model, self.optimizer = config, model, optimizer
        self.stream, self.device, self.parts = stream, stream.device, parts
        self.forward = in_precision(model, config.training.speed.precision)
        self.reset_scaler({})
        self.ends = period_ends(config.training, stream.steps_per_epoch)  # step of each epoch's end
        self.total = self.ends[-1]
        self.least = 2 if has_batch_norm(model) else 1  # images of a part
        self.channels_last = config.training.speed.channels_last

    def reset_scaler(self, state: dict[str, Any]) -> None:
        """Give the gradient scaler a state, also after an interrupted step; {} = the initial."""
        self.scaler = gradient_scaler(self.device, self.config.training.speed.precision, state)

    def epoch(
        self, epoch: int, start: int, stop: int, advance: Callable[[], None]
    ) -> dict[str, float]:
        """Train steps start ≤ t < stop; returns the mean metrics."""
        config = self.config
        sums = StepStats.zero(self.device)
        seen, rate = 0, 0.0
        self.model.train()
        for step, batch in enumerate(self.stream.steps(start, stop), start):
            rate = learning_rate(config.training, step, self.total, epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            alpha: float | None = None if config.guided else 1.0  # None follows the losses
            if config.guided and config.alpha != "auto":
                alpha = config.alpha
            sums += self.step(batch, alpha)
            seen += len(batch.labels)
            advance()
            watchdog.beat()
        return {"lr": rate} | mean_metrics(sums, seen, consistency=bool(config.consistency))

    def step(self, batch: Batch, alpha: float | None) -> StepStats:
        """One optimizer step; α None follows the losses."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = StepStats.zero(self.device)
        for part in in_parts(batch, self.parts, self.least):
            sums += self.accumulate(part, alpha, len(part.labels) / len(batch.labels))
        if self.config.training.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.training.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return sums

    def accumulate(self, batch: Batch, alpha: float | None, share: float) -> StepStats:
        """Accumulate `share` times the gradient of the mean loss of a batch, see `step`."""
        training = self.config.training
        images = to_device(batch.images, self.device, self.channels_last)
        targets = self._targets(batch)
        logits, cam = self._logits_and_maps(self.model.preprocess(images), targets.labels)
        terms = guided_loss_terms(logits, cam, targets, training.distance, training.mark_weight)
        weight = balanced_alpha(terms) if alpha is None else alpha
        loss = combine(terms, weight)
        divergence = self._inconsistency(batch, logits, targets.sample_weight)
        if divergence is not None:
            loss = loss + self.config.consistency * divergence.mean()
        self.scaler.scale(loss if share == 1 else loss * share).backward()
        stats = StepStats.of(
            logits, terms, targets, loss, weight, training.distance, training.mark_weight
        )
        if divergence is not None:
            stats = replace(stats, inconsistency=divergence.detach().sum())
        return stats

    def _inconsistency(
        self, batch: Batch, logits: Tensor, sample_weight: Tensor | None
    ) -> Tensor | None:
        """(B,) divergences of the predictions for the images without changes outside their maps."""
        if batch.unchanged is None or batch.changed is None:
            return None
        images = to_device(batch.unchanged, self.device, self.channels_last)
        unchanged, *_ = self.forward(self.model.preprocess(images))
        which = batch.changed.to(self.device)
        return inconsistency(unchanged, logits, which, sample_weight)

    def _logits_and_maps(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the saliency maps or the evidence of a guided run."""
        if not self.config.guided:
            logits, _ = self.forward(images)
            return logits, None
        training = self.config.training
        out = self.forward(
            images,
            "predicted" if training.cam_class == "predicted" else labels,
            **({"decision": True} if training.cam_class == "decision" else {}),
        )
        return out.logits, out.evidence if takes_masks(training.distance) else out.saliency

    def _targets(self, batch: Batch) -> Targets:
        """Training targets of a batch on the device."""
        labels, maps, map_weight, sample_weight, probabilities = (
            None if part is None else part.to(self.device) for part in batch[1:6]
        )
        assert labels is not None
        soft, given = None, self.config.soft_labels
        if probabilities is not None and given is not None:
            soft = SoftTargets(probabilities, given.weight, given.temperature)
        return Targets(labels, maps, map_weight, sample_weight, soft)


def _attempt(
    trainer: Trainer, epoch: int, start: int, stop: int, advance: Callable[[], None]
) -> dict[str, float] | None:
    """Train an epoch; returns its metrics, or None if memory ran out within the epoch."""
    torch.manual_seed(derived_seed(trainer.config.seed, epoch))
    try:
        return trainer.epoch(epoch, start, stop, advance)
    except (MemoryError, OSError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    return None  # the error has been freed, with the tensors in its frames


def _divide(
    run: RunContext, trainer: Trainer, untrained: Callable[[], GuidedModel], epoch: int
) -> None:
    """Restore the start of an epoch and increase the number of micro-batches."""
    largest = trainer.stream.sizes[-1]
    parts = more_parts(trainer.parts, largest, trainer.least)
    if parts is None or not run.exclusive:
        raise run.out_of_memory(math.ceil(largest / trainer.parts))
    trainer.parts = parts
    trainer.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    release_memory(trainer.device)
    if not epoch:
        trainer.model.load_state_dict(untrained().state_dict())
        groups = trainer.optimizer.state_dict()["param_groups"]
        trainer.optimizer.load_state_dict({"state": {}, "param_groups": groups})
    before = load_progress(run.state, run.id, trainer.model, trainer.optimizer)
    if before.epoch != epoch:
        raise RunFailedError(f"run {run.id}: {run.state} was changed by another process")
    trainer.reset_scaler(before.scaler)
    run.tell(f"out of memory in epoch {epoch + 1}: each batch is now computed in {parts} parts")


def _check_loss(run: RunContext, metrics: dict[str, float]) -> None:
    if not math.isfinite(metrics["loss"]):
        raise RunFailedError(
            f"run {run.id}: the training diverged, with loss {metrics['loss']} in epoch "
            f"{metrics['epoch']:.0f}; lower lr or set clip"
        )


def _validated(
    run: RunContext, trainer: Trainer, sets: dict[str, Rows], epoch: int
) -> dict[str, SetMetrics]:
    """Validation metrics after an epoch; detects divergence in the last steps."""
    try:
        return validate(
            trainer.model,
            sets,
            trainer.forward,
            run.config.validation_negatives,
            run.config.guided_map,
        )
    except NotANumberError as error:
        raise RunFailedError(
            f"run {run.id}: the training diverged: after epoch {epoch + 1}, {error}; lower lr or "
            "set clip"
        ) from error


def _keep(run: RunContext, progress: Progress, trainer: Trainer) -> None:
    """Write metrics.csv and the checkpoint after an epoch."""
    run.check()
    save_progress(run.state, run.id, progress, trainer.model, trainer.optimizer)
    write_atomically(run.folder / "metrics.csv", metrics_table(progress.history), flush=False)


def derived_seed(seed: int, epoch: int) -> int:
    """Random seed of torch that differs between epochs and seeds."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=7).digest())
