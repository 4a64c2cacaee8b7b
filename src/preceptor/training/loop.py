"""The training step and the epoch made of it; nothing in a step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from preceptor.config.run import RunConfig
from preceptor.data.loader import Batch, TrainingStream
from preceptor.inference.predict import to_device
from preceptor.losses.distillation import SoftTargets
from preceptor.losses.guided import GuidedLoss, gradient_norms, guided_loss_terms
from preceptor.models.guided_model import GuidableModel
from preceptor.models.sync_batch_norm import has_batch_norm
from preceptor.runtime import watchdog
from preceptor.saliency.agreement import correlation
from preceptor.training.distributed import Ranks
from preceptor.training.micro_batches import in_parts
from preceptor.training.schedules import alpha_at, learning_rate


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
        self.loss = GuidedLoss(config.alpha if config.guided else 1.0, config.training.distance)

    def epoch(
        self, epoch: int, start: int, stop: int, advance: Callable[[], None]
    ) -> dict[str, float]:
        """Train steps start ≤ t < stop and return the epoch's mean metrics, of all processes."""
        config = self.config
        sums = torch.zeros(8, device=self.fabric.device)
        own, rate = 0, 0.0  # images of this process
        self.model.train()
        for step, batch in enumerate(self.stream.steps(start, stop), start):
            rate = learning_rate(config.training, step, self.total, epoch)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            if config.guided:
                self.loss.alpha = alpha_at(config.alpha, config.alpha_start, step, self.total)
            whole = self.stream.size(step)
            sums += self._step(batch, self.ranks.world * len(batch.labels) / whole)
            own += len(batch.labels)
            advance()
            watchdog.beat()
        counted = torch.tensor([float(own)], dtype=torch.float64)
        values = self.ranks.total(torch.cat([sums.cpu().double(), counted])).numpy()
        guided, seen = values[5], values[8]
        mean = values / max(seen, 1)
        metrics = {
            "lr": rate,
            "images": seen,
            "loss": mean[0],
            "classification": mean[1],
            "guidance": values[2] / guided if guided else math.nan,
            "grad_logits": mean[3],
            "grad_map": values[4] / guided if guided else math.nan,
            "guided": guided,
            "uninformative": values[6],
            "map_correlation": values[7] / guided if guided else math.nan,
        }
        return {key: float(value) for key, value in metrics.items()}

    def _step(self, batch: Batch, share: float) -> Tensor:
        """One step of the optimiser.

        Args:
            batch: This process's share of the batch.
            share: What its mean counts in the mean over processes, which DDP takes: 1 where all
                shares have the same size.

        Returns:
            (8,) sums over the images of `batch`, see `_sums`.
        """
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(8, device=self.fabric.device)
        for part in in_parts(batch, self.parts, self.least):
            sums += self._gradients(part, share * len(part.labels) / len(batch.labels))
        if self.config.training.clip is not None:
            self.fabric.clip_gradients(  # of what half precision has scaled, the true norm
                self.wrapped, self.optimiser, max_norm=self.config.training.clip,
                error_if_nonfinite=False,
            )  # fmt: skip
        self.optimiser.step()
        return sums

    def _gradients(self, batch: Batch, share: float) -> Tensor:
        """Add `share` times the gradient of a batch's mean loss; (8,) sums over its images."""
        config, settings, device = self.config, self.config.training, self.fabric.device
        images = self.model.preprocess(to_device(batch.images, device, self.channels_last))
        labels = batch.labels.to(device)
        weights = [
            None if part is None else part.to(device)
            for part in (batch.maps, batch.map_weight, batch.sample_weight)
        ]
        maps, map_weight, sample_weight = weights
        soft = None
        if batch.soft is not None and config.soft_labels is not None:
            given = config.soft_labels
            soft = SoftTargets(batch.soft.to(device), given.weight, given.temperature)
        cam = None
        if config.guided:
            of = labels if settings.cam_class == "label" else "predicted"
            alone = {"maps_alone": True} if self.ranks.world > 1 and self.loss.alpha == 0 else {}
            logits, _, cam, _ = self.wrapped(images, of, **alone)
        else:
            logits, _ = self.wrapped(images)
        terms = guided_loss_terms(
            logits, labels, cam, maps, map_weight, sample_weight,
            distance=settings.distance, soft=soft,
        )  # fmt: skip
        loss = self.loss.combine(terms)
        self.fabric.backward(loss if share == 1 else loss * share)
        return self._sums(logits, labels, cam, maps, map_weight, sample_weight, soft, terms, loss)

    @torch.no_grad()
    def _sums(
        self,
        logits: Tensor,
        labels: Tensor,
        cam: Tensor | None,
        maps: Tensor | None,
        map_weight: Tensor | None,
        sample_weight: Tensor | None,
        soft: SoftTargets | None,
        terms: Any,
        loss: Tensor,
    ) -> Tensor:
        """What metrics.csv reports of one batch, summed over its images."""
        at_logits, at_map = gradient_norms(
            logits, labels, terms, cam, maps, map_weight, sample_weight,
            alpha=self.loss.alpha, distance=self.loss.distance, soft=soft,
        )  # fmt: skip
        agreement = torch.zeros((), device=logits.device)
        if cam is not None and maps is not None:
            values, valid = correlation(cam, torch.where(terms.guided[:, None, None], maps, 0))
            agreement = torch.where(valid & terms.guided, values, 0).sum()
        return torch.stack(
            [
                loss * len(labels),
                terms.classification.sum(),
                terms.guidance.sum(),
                at_logits.sum(),
                at_map.sum(),
                terms.guided.sum().float(),
                terms.uninformative.sum().float(),
                agreement,
            ]
        )
