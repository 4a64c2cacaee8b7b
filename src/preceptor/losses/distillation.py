"""Distillation loss: cross-entropy with a Teacher's class probabilities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def distillation(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Distillation loss of each image at a temperature (Hinton, Vinyals, Dean, 2015).

        T² · −Σ_c q_c log p_c,   q = targets^(1/T) ÷ Σ targets^(1/T),   p = softmax(logits ÷ T)

    The factor T² keeps the size of the gradient independent of the temperature.

    Args:
        logits: (B, C); gradients flow into them.
        targets: (B, C) probabilities, rows summing to 1.
        temperature: T > 0; above 1 softens.

    Returns:
        (B,) ≥ 0; its minimum, for p = q, is T² times the entropy of q.

    Raises:
        ValueError: The shapes differ.

    Reference:
        G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv 1503.02531.

    Example:
        >>> distillation(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), temperature=1.0)
        tensor([0.6931])
    """
    if logits.shape != targets.shape or logits.ndim != 2:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be (B, C)"
        )
    q = softened(targets.to(logits.dtype), temperature)
    return -(temperature**2) * (q * (logits / temperature).log_softmax(1)).sum(1)


def softened(targets: Tensor, temperature: float) -> Tensor:
    """(B, C) probabilities to the power 1/T, normalized again.

    Computed on logarithms, since high powers of small probabilities underflow.
    """
    return (targets.log() / temperature).softmax(1)


class SoftTargets(NamedTuple):
    """Soft labels: a Teacher's probabilities as additional targets of the classification term.

    Args:
        targets: (B, C); a row with NaN = no soft label, the image has the plain term only.
        weight: Weight of the soft term in [0, 1].
        temperature: T > 0.
    """

    targets: Tensor
    weight: float
    temperature: float

    def known(self) -> tuple[Tensor, Tensor]:
        """(B, C) targets without NaN, and (B,) weight of the soft term of each row."""
        there = ~self.targets.isnan().any(1)
        even = torch.full_like(self.targets, 1 / self.targets.shape[1])
        share = there.to(self.targets.dtype) * self.weight
        return torch.where(there[:, None], self.targets, even), share
