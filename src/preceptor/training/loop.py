"""Training loop: resume, then for each epoch train, validate, keep the best, save.

`fit` is the loop over epochs, `Trainer.epoch` the loop over steps, `Trainer.step` one step with
gradient accumulation. A step does not synchronize with the device.

A batch that does not fit into memory is divided into micro-batches, whose losses are weighted by
their shares of the images. The gradient is the same up to rounding, except that batch norm uses the
statistics and `alpha: auto` the losses of a micro-batch, and that dropout masks differ.
"""

from __future__ import annotations

import gc
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preceptor.config.run import RunConfig
from preceptor.config.training import Training, takes_masks
from preceptor.data.loader import Batch, Rows, TrainingStream
from preceptor.errors import DeviceFullError, PreceptorError, RunFailedError
from preceptor.inference.predict import to_device
from preceptor.losses.guided import (
    LossTerms,
    Targets,
    balanced_alpha,
    combine,
    gradient_norms,
    guided_loss_terms,
    inconsistency,
)
from preceptor.models.features import has_batch_norm
from preceptor.models.guided_model import GuidedModel, gradient_scaler, in_precision
from preceptor.saliency.maps import correlation
from preceptor.training.checkpoint import Progress, load_progress, save_progress, snapshot
from preceptor.training.record import epoch_line, epoch_score, flat_metrics, metrics_table
from preceptor.training.validation import NotANumberError, validate
from preceptor.utils import process
from preceptor.utils.leases import Lease
from preceptor.utils.memory import out_of_memory, release_memory
from preceptor.utils.results import write_atomically
from preceptor.utils.text import progress as progress_display


@dataclass(frozen=True)
class RunContext:
    """Run in progress: config, folder and lease."""

    config: RunConfig
    folder: Path
    held: Lease
    tell: Callable[[str], None]
    tell_epoch: Callable[[str], None]  # function that receives the summary line of each epoch
    exclusive: bool  # whether no other step uses the device

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.folder.name

    @property
    def state(self) -> Path:
        """Checkpoint file."""
        return self.folder / "resume.safetensors"

    def out_of_memory(self, images: int | None = None) -> PreceptorError:
        """Error of a run that runs out of memory even with micro-batches of `images` images."""
        settings = self.config.training
        given = f"batch_size {settings.batch_size}"
        given += f", input_size {settings.input_size}" if settings.input_size else ""
        if not self.exclusive:
            return DeviceFullError(f"run {self.id}: out of memory on a shared device ({given})")
        even = f" even with {images} image{'s' * (images > 1)} at a time" if images else ""
        return RunFailedError(
            f"run {self.id}: out of memory{even} ({given}); lower input_size, or take a smaller "
            "backbone or a device with more memory"
        )

    def diverged(self, how: str) -> RunFailedError:
        """Error of a run whose loss or scores are no numbers."""
        return RunFailedError(f"run {self.id}: the training diverged{how}; lower lr or set clip")


def fit(
    run: RunContext,
    trainer: Trainer,
    validation: dict[str, Rows],
    untrained: Callable[[], GuidedModel],
) -> Progress:
    """Train all remaining epochs, and keep the weights of the best one; `untrained` builds the
    initial model, for a first epoch that is repeated.
    """
    config, model, ends = run.config, trainer.model, trainer.ends

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
            while (trained := _attempt(trainer, epoch, start, ends[epoch], advance)) is None:
                _divide(run, trainer, untrained, epoch)
                display.update(task, completed=start)
            metrics = {"epoch": epoch + 1.0} | trained
            if not math.isfinite(metrics["loss"]):
                raise run.diverged(f", with loss {metrics['loss']} in epoch {epoch + 1}")

            # Validate, and keep the best epoch: ties go to the later one.
            negatives, maps = config.validation_negatives, config.guided_map
            try:
                measured = validate(model, validation, trainer.forward, negatives, maps)
            except NotANumberError as error:
                raise run.diverged(f": after epoch {epoch + 1}, {error}") from error
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
            run.held.check()  # no other process has taken over
            save_progress(run.state, run.id, progress, model, trainer.optimizer)
            table = metrics_table(progress.history)
            write_atomically(run.folder / "metrics.csv", table, flush=False)
            run.tell_epoch(line)  # an epoch that was reported is never repeated
            display.update(task, note=line)
            process.beat()
    return progress


class Trainer:
    """Trainer of epochs."""

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
        self.least = 2 if has_batch_norm(model) else 1  # images of a part
        self.channels_last = config.training.speed.channels_last

    def reset_scaler(self, state: dict[str, Any]) -> None:
        """Give the gradient scaler a state, also after an interrupted step; {} = the initial."""
        self.scaler = gradient_scaler(self.device, self.config.training.speed.precision, state)

    def epoch(
        self, epoch: int, start: int, stop: int, advance: Callable[[], None]
    ) -> dict[str, float]:
        """Train steps start ≤ t < stop; returns the mean metrics."""
        config, sums, seen, rate = self.config, dict[str, Tensor](), 0, 0.0
        alpha: float | None = None if config.guided else 1.0  # None follows the losses
        if config.guided and config.alpha != "auto":
            alpha = config.alpha
        self.model.train()
        for step, batch in enumerate(self.stream.steps(start, stop), start):
            rate = learning_rate(config.training, step, self.ends[-1], epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            sums = _added(sums, self.step(batch, alpha))
            seen += len(batch.labels)
            advance()
            process.beat()
        return {"lr": rate} | _means(sums, seen)

    def step(self, batch: Batch, alpha: float | None) -> dict[str, Tensor]:
        """One optimizer step; α None follows the losses. Returns sums over the images."""
        training = self.config.training
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for part in in_parts(batch, self.parts, self.least):
            share = len(part.labels) / len(batch.labels)
            sums = _added(sums, self.accumulate(part, alpha, share))
        if training.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return sums

    def accumulate(self, batch: Batch, alpha: float | None, share: float) -> dict[str, Tensor]:
        """Accumulate `share` times the gradient of the mean loss of a batch, see `step`."""
        config, training = self.config, self.config.training
        labels, *others = (None if part is None else part.to(self.device) for part in batch[1:5])
        assert labels is not None
        targets = Targets(labels, *others)
        images = self.model.preprocess(to_device(batch.images, self.device, self.channels_last))
        cam = None
        if config.guided:
            classes = "predicted" if training.cam_class == "predicted" else labels
            out = self.forward(images, classes, decision=training.cam_class == "decision")
            logits = out.logits
            cam = out.evidence if takes_masks(training.distance) else out.saliency
        else:
            logits, _ = self.forward(images)
        terms = guided_loss_terms(logits, cam, targets, training.distance, training.mark_weight)
        weight = balanced_alpha(terms) if alpha is None else alpha
        loss = combine(terms, weight)
        divergence: Tensor | None = None
        if batch.unchanged is not None and batch.changed is not None:
            pixels = to_device(batch.unchanged, self.device, self.channels_last)
            unchanged, *_ = self.forward(self.model.preprocess(pixels))
            which = batch.changed.to(self.device)
            divergence = inconsistency(unchanged, logits, which, targets.sample_weight)
            loss = loss + config.consistency * divergence.mean()
        scaled: Tensor = self.scaler.scale(loss if share == 1 else loss * share)
        scaled.backward()  # type: ignore[no-untyped-call]
        sums = step_sums(logits, terms, targets, loss, weight, training)
        if config.consistency:
            parts = logits.new_zeros(()) if divergence is None else divergence.detach().sum()
            sums["inconsistency"] = parts
        return sums


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
    most = max(largest // trainer.least, 1)
    if trainer.parts >= most or not run.exclusive:
        raise run.out_of_memory(math.ceil(largest / trainer.parts))
    trainer.parts = parts = min(2 * trainer.parts, most)
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


def derived_seed(seed: int, epoch: int) -> int:
    """Random seed of torch that differs between epochs and seeds."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=7).digest())


# Schedule and micro-batches.


def period_ends(settings: Training, steps_per_epoch: int) -> list[int]:
    """Last step of each epoch (with length steps, of each of `epochs` equal periods)."""
    if settings.length == "epochs":
        return [steps_per_epoch * (epoch + 1) for epoch in range(settings.epochs)]
    assert settings.steps is not None
    return [settings.steps * (epoch + 1) // settings.epochs for epoch in range(settings.epochs)]


def learning_rate(settings: Training, step: int, total: int, epoch: int) -> float:
    """Learning rate of one step, 0 ≤ step < total, in an epoch (or period)."""
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * 0.1 ** (epoch // 12)  # as the authors of CYBORG
    # The middle of the step, so that neither the first nor the last step has a rate of 0.
    done = (step + 0.5) / total
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    if done < settings.warmup:
        return settings.lr * done / settings.warmup
    fall = (done - settings.warmup) / (1 - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * fall))


def in_parts(batch: Batch, parts: int, least: int) -> list[Batch]:
    """Divide a batch into consecutive micro-batches whose sizes differ by at most one."""
    count = len(batch.labels)
    parts = min(parts, max(count // least, 1))
    if parts == 1:
        return [batch]
    values = [[None] * parts if value is None else value.tensor_split(parts) for value in batch]
    return [Batch(*part) for part in zip(*values, strict=True)]


# Metrics of the steps.


@torch.no_grad()
def step_sums(
    logits: Tensor,
    terms: LossTerms,
    targets: Targets,
    loss: Tensor,
    alpha: float | Tensor,
    training: Training,
) -> dict[str, Tensor]:
    """Sums over the images of a batch, whose means over an epoch are in metrics.csv."""
    at_logits, at_map = gradient_norms(
        logits, terms, targets, alpha, training.distance, training.mark_weight
    )
    agreement = torch.zeros((), device=logits.device)
    if terms.pair is not None:
        values, valid = correlation(terms.pair.model, terms.pair.target, normalized=True)
        agreement = torch.where(valid & terms.guided, values, 0).sum()
    return {
        "loss": loss * len(logits),
        "classification": terms.classification.sum(),
        "guidance": terms.guidance.sum(),
        "grad_logits": at_logits.sum(),
        "grad_map": at_map.sum(),
        "guided": terms.guided.sum().float(),
        "uninformative": terms.uninformative.sum().float(),
        "map_correlation": agreement,
    }


def _added(sums: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: sums[key] + value if sums else value for key, value in others.items()}


def _means(sums: dict[str, Tensor], seen: int) -> dict[str, float]:
    """Mean metrics of an epoch from its sums; of guidance, over the guided images."""
    total = dict(zip(sums, torch.stack(tuple(sums.values())).cpu().double().tolist(), strict=True))
    guided = total["guided"] or math.nan  # avoids a mean over no images
    counts = {"guided", "uninformative"}
    per_guided = {"guidance", "grad_map", "map_correlation"}
    return {"images": float(seen)} | {
        key: value if key in counts else value / (guided if key in per_guided else seen)
        for key, value in total.items()
    }
