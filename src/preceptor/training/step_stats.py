"""Statistics of training steps, whose means are reported in metrics.csv."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from preceptor.config.guidance import Distances
from preceptor.losses.guidance_term import MARK_WEIGHT
from preceptor.losses.guided import LossTerms, Targets, gradient_norms
from preceptor.saliency.agreement import correlation


@dataclass(frozen=True)
class StepStats:
    """Sums over the images of a batch, accumulated over the steps of an epoch.

    Args:
        loss: Sum of the loss.
        classification, guidance: Sums of its terms, see `LossTerms`.
        grad_logits, grad_map: Sums of the gradient norms, see `gradient_norms`.
        guided, uninformative: Numbers of images.
        map_correlation: Sum of the correlations of CAM and target over the guided images.
        inconsistency: Sum of the divergences of `preceptor.losses.consistency`.
    """

    loss: Tensor
    classification: Tensor
    guidance: Tensor
    grad_logits: Tensor
    grad_map: Tensor
    guided: Tensor
    uninformative: Tensor
    map_correlation: Tensor
    inconsistency: Tensor

    def __add__(self, other: StepStats) -> StepStats:
        return StepStats(*(self.stacked() + other.stacked()))

    def stacked(self) -> Tensor:
        """(9,) sums as one tensor, in the order of the fields."""
        return torch.stack(tuple(vars(self).values()))

    @classmethod
    def zero(cls, device: torch.device) -> StepStats:
        """Sums over no images."""
        return cls(*torch.zeros(9, device=device))

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        logits: Tensor,
        terms: LossTerms,
        targets: Targets,
        loss: Tensor,
        alpha: float | Tensor,
        distance: Distances,
        mark_weight: float = MARK_WEIGHT,
    ) -> StepStats:
        """Sums of one batch, from its loss and terms."""
        grad_logits, grad_map = gradient_norms(
            logits, terms, targets, alpha=alpha, distance=distance, mark_weight=mark_weight
        )
        agreement = torch.zeros((), device=logits.device)
        if terms.pair is not None:
            values, valid = correlation(terms.pair.model, terms.pair.target, normalised=True)
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
            inconsistency=torch.zeros_like(agreement),
        )
