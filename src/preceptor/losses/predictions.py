"""Losses of predictions alone: consistency outside the map, and distillation.

Consistency is that of the predictions for an image and for its version changed outside its map:

    K_k = D_KL(p(x_k) ‖ p(x'_k)),    L + λ · 1/K Σ_k v_k K_k

x' is the image in which `preceptor.data.outside` has changed what the map leaves out, and L the
guided loss of x'. The gradient flows through both predictions: that of the unchanged image may not
depend on what was changed. Images that were not changed have K_k = 0.

The divergence is that of A. A. Ismail, H. Corrada Bravo, S. Feizi, "Improving Deep Learning
Interpretability by Saliency Guided Training", NeurIPS 2021. Unlike a squared difference of logits,
it does not depend on their common offset, and it is the same for heads with one logit. J. Viviano,
B. Simpson, F. Dutil, Y. Bengio, J. P. Cohen, "Saliency is a Possible Red Herring When Diagnosing
Poor Generalization", ICLR 2021 (ActDiff), compare features instead of predictions; C. R. Crum et
al., arXiv 2511.12744 (SAGE), embeddings of versions with and without what the map marks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from preceptor.saliency.cam import binary_logits


def inconsistency(
    unchanged: Tensor, changed: Tensor, which: Tensor, sample_weight: Tensor | None = None
) -> Tensor:
    """Divergence of the predictions for each image.

    Args:
        unchanged: (B, C) logits of the images; (B, 1) are single logits of class 1 against class 0.
        changed: (B, C) logits of the images changed outside their maps.
        which: (B,) bool, images that were changed.
        sample_weight: (B,) v_k > 0; None = 1.

    Returns:
        (B,) float32 or wider divergences ≥ 0; exactly 0 for images that were not changed.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> same, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
        >>> inconsistency(same, other, torch.tensor([True]))
        tensor([0.4338])
    """
    if unchanged.shape != changed.shape or which.shape != unchanged.shape[:1]:
        raise ValueError(
            f"logits {tuple(unchanged.shape)} and {tuple(changed.shape)} must be equal in shape, "
            f"and which {tuple(which.shape)} (B,)"
        )
    kind = torch.promote_types(unchanged.dtype, torch.float32)
    log_p, log_q = (binary_logits(one.to(kind)).log_softmax(1) for one in (unchanged, changed))
    found = torch.where(which, (log_p.exp() * (log_p - log_q)).sum(1).clamp_min(0), 0)
    return found if sample_weight is None else found * sample_weight


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
