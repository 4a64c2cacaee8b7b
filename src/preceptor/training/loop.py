"""Training loop: resume, then for each epoch train, validate, keep the best, save.

`fit` is the loop over epochs, `Trainer.epoch` the loop over steps. `Trainer.step` is one step; with
a distance of maps, in full precision or bfloat16, it does not synchronize with the device.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from preceptor.config.run import RunConfig
from preceptor.config.training import Training, takes_masks
from preceptor.data.augment import masks_of
from preceptor.data.loader import Batch, Rows, TrainingStream
from preceptor.errors import RunFailedError
from preceptor.inference.predict import to_device
from preceptor.losses.guidance import (
    Guidance,
    GuidanceBatch,
    GuidedForward,
    guided_objective,
    mean_losses,
)
from preceptor.losses.guided import (
    LossTerms,
    Targets,
    balanced_alpha,
    combine,
    gradient_norms,
    guided_loss_terms,
)
from preceptor.models.guided_model import GuidedModel, in_precision
from preceptor.saliency.maps import correlation
from preceptor.training.record import (
    Progress,
    epoch_line,
    epoch_score,
    flat_metrics,
    load_progress,
    metrics_table,
    restore,
    save_progress,
    snapshot,
)
from preceptor.training.validation import NotANumberError, validate
from preceptor.utils import process
from preceptor.utils.leases import Lease
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

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.folder.name

    @property
    def state(self) -> Path:
        """Checkpoint file."""
        return self.folder / "resume.safetensors"

    def diverged(self, how: str) -> RunFailedError:
        """Error of a run whose loss or scores are NaN or infinite."""
        return RunFailedError(f"run {self.id}: the training diverged{how}; lower lr or set clip")


def fit(
    run: RunContext,
    trainer: Trainer,
    validation: dict[str, Rows],
    reference: Callable[[], TrainingStream],
) -> Progress:
    """Train all remaining epochs, and keep the weights of the best one.

    `reference` gives the training images with centered maps, see `Trainer.measured_scale`.
    """
    config, model, ends = run.config, trainer.model, trainer.ends

    # Resume.
    progress = load_progress(run.state, run.id, model, trainer.optimizer, trainer.layers)
    if progress.scaler:
        trainer.scaler.load_state_dict(progress.scaler)
    if progress.epoch:
        run.tell(f"resumed after epoch {progress.epoch} of {len(ends)}")
    if trainer.method is not None and progress.scale is None:
        progress.scale = trainer.measured_scale(trainer.method, reference())
    trainer.scale = progress.scale

    with progress_display() as display:
        task = display.add_task(
            f"{config.backbone} seed {config.seed}",
            total=ends[-1],
            note="",
            completed=ends[progress.epoch - 1] if progress.epoch else 0,
        )
        for epoch in range(progress.epoch, len(ends)):
            started = time.monotonic()

            # Train.
            start = ends[epoch - 1] if epoch else 0
            trained = trainer.epoch(epoch, start, ends[epoch], partial(display.advance, task))
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
            progress.epoch, progress.scaler = epoch + 1, trainer.scaler.state_dict()
            line = epoch_line(metrics, len(ends), metrics["images"] / seconds)
            run.held.check()  # no other process has taken over
            save_progress(run.state, run.id, progress, model, trainer.optimizer, trainer.layers)
            table = metrics_table(progress.history)
            write_atomically(run.folder / "metrics.csv", table, flush=False)
            run.tell_epoch(line)  # an epoch that was reported is never repeated
            display.update(task, note=line)
            process.beat()
    return progress


PLAIN_STEPS = 100  # steps without guidance, after which the scale of a method is measured
SCALE_IMAGES = 64  # images, at least, by which it is measured


class Trainer:
    """Trainer of epochs, by a distance of maps or a guidance method, with its own `layers`."""

    def __init__(
        self,
        config: RunConfig,
        model: GuidedModel,
        optimizer: torch.optim.Optimizer,
        stream: TrainingStream,
        method: Guidance | None = None,
        layers: nn.Module | None = None,
    ) -> None:
        self.config, self.model, self.optimizer = config, model, optimizer
        self.stream, self.device, training = stream, stream.device, config.training
        self.forward = in_precision(model, training.precision)
        self.method, self.layers, self.scale = method, layers, None if method is None else 1.0
        self.guided_forward = GuidedForward(model, self.forward)
        half = training.precision == "16-mixed"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.ends = period_ends(config.training, stream.steps_per_epoch)  # step of each epoch's end
        self.channels_last = training.channels_last

    def epoch(
        self, epoch: int, start: int, stop: int, advance: Callable[[], None]
    ) -> dict[str, float]:
        """Train steps start ≤ t < stop; returns the mean metrics."""
        training, sums, seen, rate = self.config.training, dict[str, Tensor](), 0, 0.0
        torch.manual_seed(derived_seed(self.config.seed, epoch))
        self.model.train()
        for step, batch in enumerate(self.stream.steps(start, stop), start):
            rate = learning_rate(training, step, self.ends[-1], epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            metrics = self.step(batch)
            sums = {key: sums[key] + value if sums else value for key, value in metrics.items()}
            seen += len(batch.labels)
            advance()
            process.beat()
        return {"lr": rate} | _means(sums, seen)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step; returns sums of metrics over the images."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, sums = self.loss(batch)
        _optimizer_step(loss, self.optimizer, self.scaler, self.config.training.clip)
        return sums

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a batch, and sums of metrics over its images."""
        targets, images = self._targets(batch), self._input(batch.images)
        if self.method is None:
            loss, logits, sums = self._distance_loss(images, targets)
        else:
            loss, logits, sums = self._method_loss(self.method, images, targets, batch.input_maps)
        return loss, {"loss": loss.detach() * len(logits)} | sums

    def _targets(self, batch: Batch) -> Targets:
        """Labels, maps and weights of a batch on the device."""
        labels, *others = (None if part is None else part.to(self.device) for part in batch[1:5])
        assert labels is not None
        return Targets(labels, *others)

    def _input(self, images: Tensor) -> Tensor:
        """Input of the model from the images of a batch."""
        return self.model.preprocess(to_device(images, self.device, self.channels_last))

    def _distance_loss(
        self, images: Tensor, targets: Targets
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Loss by a distance of maps, or without guidance; logits, and sums of metrics."""
        config, training, labels = self.config, self.config.training, targets.labels
        cam = None
        if config.guided:
            classes = "predicted" if training.cam_class == "predicted" else labels
            out = self.forward(images, classes, decision=training.cam_class == "decision")
            logits = out.logits
            cam = out.evidence if takes_masks(training.distance) else out.saliency
        else:
            logits, _ = self.forward(images)
        terms = guided_loss_terms(logits, cam, targets, training.distance, training.mark_weight)
        alpha: float | Tensor = 1.0
        if config.guided:
            alpha = balanced_alpha(terms) if config.alpha == "auto" else config.alpha
        return combine(terms, alpha), logits, step_sums(logits, terms, targets, alpha, training)

    def _method_loss(
        self, method: Guidance, images: Tensor, targets: Targets, input_maps: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Loss by a guidance method, logits, and sums of metrics, NaN for the ones of distances."""
        assert isinstance(self.config.alpha, float)
        batch, forward = guidance_batch(images, targets, input_maps), self.guided_forward
        loss, terms, logits = guided_objective(
            method, batch, forward, self.config.alpha, self.scale, targets.sample_weight
        )
        weight, asked = method.weights(batch), targets.map_weight
        guided = torch.zeros_like(targets.labels) if weight is None else weight > 0
        sums = {key: term.detach().sum() for key, term in terms.items()}
        classification, nothing = sums.pop("classification"), loss.new_tensor(math.nan)
        ignored = 0 * guided if asked is None else (asked > 0) & (guided == 0)
        return (
            loss,
            logits,
            {
                "classification": classification,
                "guidance": sum(sums.values(), torch.zeros_like(classification)),
                "grad_logits": nothing,
                "grad_map": nothing,
                "guided": guided.sum().float(),
                "uninformative": ignored.sum().float(),
                "map_correlation": nothing,
            },
        )

    def measured_scale(self, method: Guidance, reference: TrainingStream) -> float:
        """λ of a guidance method: log K of K classes ÷ its mean term after plain steps.

        The maps of `reference` are centered maps of all images, so that Students, controls and
        ceiling of a seed have the same λ, however many images they guide. At the start of training
        a term may be thousands of times smaller. Changes neither the model nor its optimizer.
        """
        if method.weight is not None:
            return method.weight
        kept, settings = snapshot(self.model), self.config.training
        torch.manual_seed(derived_seed(self.config.seed, -2))
        self.model.train()
        optimizer = new_optimizer(settings, self.model.parameters())
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.scaler.is_enabled())
        steps, measured = min(PLAIN_STEPS, self.ends[-1]), list[GuidanceBatch]()
        batches = math.ceil(SCALE_IMAGES / min(reference.sizes))
        for step, batch in enumerate(reference.steps(0, steps + batches)):
            images, targets = self._input(batch.images), self._targets(batch)
            if step >= steps:
                measured.append(guidance_batch(images, targets, batch.input_maps))
                continue
            optimizer.zero_grad(set_to_none=True)
            logits, _ = self.forward(images)
            loss = nn.functional.cross_entropy(logits, targets.labels)
            _optimizer_step(loss, optimizer, scaler, settings.clip)
            process.beat()
        classes = len(self.model.spec.image_classes or self.model.spec.classes)
        _, mean = mean_losses(method, measured, self.guided_forward)
        restore(self.model, kept)
        return math.log(classes) / mean


def _optimizer_step(
    loss: Tensor, optimizer: torch.optim.Optimizer, scaler: Any, clip: float | None
) -> None:
    """Backward pass and step; gradients are scaled in half precision, and clipped."""
    scaler.scale(loss).backward()
    if clip is not None:
        scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    scaler.step(optimizer)
    scaler.update()


def guidance_batch(images: Tensor, targets: Targets, input_maps: Tensor | None) -> GuidanceBatch:
    """Batch of guidance methods, with maps scaled to [0, 1]."""
    maps, weight, large = targets.maps, targets.map_weight, None
    if maps is not None:
        maps, usable = masks_of(maps)
        weight = usable.float() if weight is None else torch.where(usable, weight, 0)
    if input_maps is not None:
        masks, _ = masks_of(input_maps.to(images.device))
        size = list(images.shape[-2:])
        large = nn.functional.interpolate(masks[:, None], size, mode="bilinear")[:, 0]
    return GuidanceBatch(images, targets.labels, maps, weight, large)


def new_optimizer(settings: Training, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Optimizer of a run, of what is not frozen."""
    weights = [one for one in weights if one.requires_grad]
    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(weights, lr=lr, weight_decay=decay)
    return torch.optim.SGD(weights, lr, settings.momentum, weight_decay=decay)


def derived_seed(seed: int, epoch: int) -> int:
    """Random seed of torch that differs between epochs and seeds."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=7).digest())


def period_ends(settings: Training, steps_per_epoch: int) -> list[int]:
    """Last step of each epoch (with length steps, of each of `epochs` equal periods)."""
    if settings.length == "epochs":
        return [steps_per_epoch * (epoch + 1) for epoch in range(settings.epochs)]
    assert settings.steps is not None
    return [settings.steps * (epoch + 1) // settings.epochs for epoch in range(settings.epochs)]


_WARMUP = 0.25  # share of the steps of one_cycle in which the learning rate increases


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
    if done < _WARMUP:
        return settings.lr * done / _WARMUP
    fall = (done - _WARMUP) / (1 - _WARMUP)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * fall))


# Metrics of the steps.


@torch.no_grad()
def step_sums(
    logits: Tensor, terms: LossTerms, targets: Targets, alpha: float | Tensor, training: Training
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
        "classification": terms.classification.sum(),
        "guidance": terms.guidance.sum(),
        "grad_logits": at_logits.sum(),
        "grad_map": at_map.sum(),
        "guided": terms.guided.sum().float(),
        "uninformative": terms.uninformative.sum().float(),
        "map_correlation": agreement,
    }


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
