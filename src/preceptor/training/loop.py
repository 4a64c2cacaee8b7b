"""The training step and the epoch made of it; nothing in a step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from preceptor.config.run import Distance, RunConfig
from preceptor.data.loader import Batch, TrainingStream
from preceptor.inference.predict import to_device
from preceptor.losses.distillation import SoftTargets
from preceptor.losses.guided import (
    LossTerms,
    Targets,
    combine,
    gradient_norms,
    guided_loss_terms,
)
from preceptor.models.guided_model import GuidableModel
from preceptor.models.sync_batch_norm import has_batch_norm
from preceptor.runtime import watchdog
from preceptor.saliency.agreement import correlation
from preceptor.training.distributed import Ranks
from preceptor.training.micro_batches import in_parts
from preceptor.training.schedules import alpha_at, learning_rate


@dataclass(frozen=True)
class StepStats:
    """Sums over the images of a batch, added up over the steps of an epoch.

    Args:
        loss: Of the whole loss.
        classification, guidance: Of its terms, see `LossTerms`.
        grad_logits, grad_map: Of the norms of their gradients, see `gradient_norms`.
        guided, uninformative: Numbers of images.
        map_correlation: Of the correlation of CAM and target, over the guided images.
    """

    loss: Tensor
    classification: Tensor
    guidance: Tensor
    grad_logits: Tensor
    grad_map: Tensor
    guided: Tensor
    uninformative: Tensor
    map_correlation: Tensor

    def __add__(self, other: StepStats) -> StepStats:
        return StepStats(*(self.stacked() + other.stacked()))

    def stacked(self) -> Tensor:
        """(8,) the sums as one tensor, in the order of the fields."""
        return torch.stack(tuple(vars(self).values()))

    @classmethod
    def zero(cls, device: torch.device) -> StepStats:
        """The sums over no image."""
        return cls(*torch.zeros(8, device=device))

    @classmethod
    @torch.no_grad()
    def of(
        cls, logits: Tensor, terms: LossTerms, targets: Targets, loss: Tensor, alpha: float,
        distance: Distance,
    ) -> StepStats:  # fmt: skip
        """The sums of one batch, from its loss and its terms."""
        grad_logits, grad_map = gradient_norms(
            logits, terms, targets, alpha=alpha, distance=distance
        )
        agreement = torch.zeros((), device=logits.device)
        if terms.pair is not None:
            values, valid = correlation(*terms.pair, normalised=True)
            agreement = torch.where(valid & terms.guided, values, 0).sum()
        return cls(
            loss=loss * len(logits),
            classification=terms.classification.sum(),
            guidance=terms.guidance.sum(),
            grad_logits=grad_logits.sum(),
            grad_map=grad_map.sum(),
            guided=terms.guided.sum().float(),
            uninformative=terms.uninformative.sum().float(),
            map_correlation=agreement,
        )


class Trainer:
    """Trains epochs.

    Args:
        config: The run.
        model: As it is saved.
        wrapped: The same in the precision and with the parallelism of the run.
        optimiser: Of its parameters.
        fabric: Of this process.
        stream: This process's share of every batch.
        total: Steps of the whole run.
        ranks: The processes of the run.
        parts: In how many parts each batch is computed; may be set between epochs.
    """

    def __init__(
        self,
        config: RunConfig,
        model: GuidableModel,
        wrapped: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        fabric: Fabric,
        stream: TrainingStream,
        *,
        total: int,
        ranks: Ranks,
        parts: int = 1,
    ) -> None:
        self.config, self.model, self.wrapped = config, model, wrapped
        self.optimiser, self.fabric, self.stream, self.total = optimiser, fabric, stream, total
        self.ranks, self.parts = ranks, parts
        self.least = 2 if has_batch_norm(model) else 1  # images of a part
        self.channels_last = config.training.speed.channels_last

    def epoch(
        self, epoch: int, start: int, stop: int, advance: Callable[[], None]
    ) -> dict[str, float]:
        """Train steps start ≤ t < stop and return the epoch's mean metrics, of all processes."""
        config = self.config
        sums = StepStats.zero(self.fabric.device)
        own, rate = 0, 0.0  # images of this process
        self.model.train()
        for step, batch in enumerate(self.stream.steps(start, stop), start):
            rate = learning_rate(config.training, step, self.total, epoch)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            alpha = 1.0
            if config.guided:
                alpha = alpha_at(config.alpha, config.alpha_start, step, self.total)
            # What this share's mean counts in the mean over processes, which DDP takes: 1 where
            # all shares have the same size.
            share = self.ranks.world * len(batch.labels) / self.stream.size(step)
            sums += self._step(batch, alpha, share)
            own += len(batch.labels)
            advance()
            watchdog.beat()
        return {"lr": rate} | self._means(sums, own)

    def _step(self, batch: Batch, alpha: float, share: float) -> StepStats:
        """One step of the optimiser, on this process's share of the batch."""
        self.optimiser.zero_grad(set_to_none=True)
        sums = StepStats.zero(self.fabric.device)
        for part in in_parts(batch, self.parts, self.least):
            sums += self._gradients(part, alpha, share * len(part.labels) / len(batch.labels))
        if self.config.training.clip is not None:
            self.fabric.clip_gradients(  # of what half precision has scaled, the true norm
                self.wrapped, self.optimiser, max_norm=self.config.training.clip,
                error_if_nonfinite=False,
            )  # fmt: skip
        self.optimiser.step()
        return sums

    def _gradients(self, batch: Batch, alpha: float, share: float) -> StepStats:
        """Add `share` times the gradient of a batch's mean loss."""
        distance = self.config.training.distance
        images = to_device(batch.images, self.fabric.device, self.channels_last)
        targets = self._targets(batch)
        logits, cam = self._forward(self.model.preprocess(images), targets.labels, alpha)
        terms = guided_loss_terms(logits, cam, targets, distance)
        loss = combine(terms, alpha)
        self.fabric.backward(loss if share == 1 else loss * share)
        return StepStats.of(logits, terms, targets, loss, alpha, distance)

    def _forward(
        self, images: Tensor, labels: Tensor, alpha: float
    ) -> tuple[Tensor, Tensor | None]:
        """Logits, and the CAM of a guided run."""
        if not self.config.guided:
            logits, _ = self.wrapped(images)
            return logits, None
        of = labels if self.config.training.cam_class == "label" else "predicted"
        alone = {"maps_alone": True} if self.ranks.world > 1 and alpha == 0 else {}
        logits, _, cam, _ = self.wrapped(images, of, **alone)
        return logits, cam

    def _targets(self, batch: Batch) -> Targets:
        """What a batch is trained towards, on the device."""
        labels, maps, map_weight, sample_weight, probabilities = (
            None if part is None else part.to(self.fabric.device) for part in batch[1:]
        )
        assert labels is not None
        soft, given = None, self.config.soft_labels
        if probabilities is not None and given is not None:
            soft = SoftTargets(probabilities, given.weight, given.temperature)
        return Targets(labels, maps, map_weight, sample_weight, soft)

    def _means(self, sums: StepStats, own: int) -> dict[str, float]:
        """The metrics of an epoch over all processes, from the sums and images of this one."""
        counted = torch.tensor([float(own)], dtype=torch.float64)
        *totals, seen = self.ranks.total(torch.cat([sums.stacked().cpu().double(), counted]))
        total = StepStats(*totals)
        images, guided = seen.clamp_min(1), total.guided
        guided = torch.where(guided > 0, guided, math.nan)  # no mean over no image
        metrics = {
            "images": seen,
            "loss": total.loss / images,
            "classification": total.classification / images,
            "guidance": total.guidance / guided,
            "grad_logits": total.grad_logits / images,
            "grad_map": total.grad_map / guided,
            "guided": total.guided,
            "uninformative": total.uninformative,
            "map_correlation": total.map_correlation / guided,
        }
        return {key: value.item() for key, value in metrics.items()}
