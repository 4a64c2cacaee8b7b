"""Distances between the signed evidence of each cell and a mask, used by the guided loss.

Each function takes the evidence of the cells for the image's label and a mask, both (B, h, w), and
returns (B,) distances. The evidence of a cell is the decision map plus the bias, minus the entropy
of the softmax over the other classes, which is 0 for two classes; its mean is the log-odds
log p − log(1 − p) of the label. It is not normalized, because min-max normalization removes level
and sign. The mask is in [0, 1]: 1 where the evidence lies. It is 1 everywhere for an image that was
examined and has nothing to mark, because its class is defined by the absence of other evidence;
there, `cells` and `evidence` demand evidence for the label everywhere, and `energy` and `cosine`
are not computed. Gradients flow into the evidence and are finite everywhere. Values of α are
comparable only within one distance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Mean positive evidence of a cell below which its share inside the mask has no gradient: the
# gradient is 1 ÷ the sum of the evidence, and would not fit float32.
_LEAST_EVIDENCE = 1e-6


def cells(evidence: Tensor, mask: Tensor, mark_weight: float = 9.0) -> Tensor:
    """Weighted mean of the logistic loss of each cell, Σ wᵢ (log(1 + exp zᵢ) − tᵢ zᵢ) ÷ Σ wᵢ.

    w = 1 + `mark_weight` · t, so that a small mark is not outweighed by the cells around it.

    Args:
        evidence: (B, h, w) z, signed.
        mask: (B, h, w) t in [0, 1].
        mark_weight: Additional weight of a cell inside the mask.

    Returns:
        (B,) ≥ 0; 0 is the limit for a binary mask and infinite evidence of the right sign.

    Example:
        >>> cells(torch.tensor([[[2.0, -2.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([0.1269])
    """
    z, t = evidence.flatten(1), mask.flatten(1)
    weight = 1 + mark_weight * t
    return (weight * (functional.softplus(z) - t * z)).sum(1) / weight.sum(1)


def evidence(evidence: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss of the evidence inside minus the evidence of either sign outside.

        log(1 + exp(−s)),   s = 1/(h·w) Σ (t z − (1 − t) |z|)

    Without an outside (t = 1 everywhere) it is the logistic loss of the label's log-odds.

    Args:
        evidence: (B, h, w) z, signed.
        mask: (B, h, w) t in [0, 1].

    Returns:
        (B,) > 0.

    Reference:
        J. Setpal, "Contrastive-factored cross-entropy" (ContrastiveCAM), draft and MIT-licensed
        code in github.com/jinensetpal/contrastive-optimization, 2025; here with a soft mask.

    Example:
        >>> evidence(torch.tensor([[[2.0, -2.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([0.6931])
    """
    z, t = evidence.flatten(1), mask.flatten(1)
    return functional.softplus(-(t * z - (1 - t) * z.abs()).mean(1))


def energy(evidence: Tensor, mask: Tensor) -> Tensor:
    """Share of the positive evidence outside the mask, 1 − Σ t max(z, 0) ÷ Σ max(z, 0).

    1 without positive evidence, where it has no gradient.

    Args:
        evidence: (B, h, w) z, signed.
        mask: (B, h, w) t in [0, 1].

    Returns:
        (B,) in [0, 1].

    Reference:
        S. Rao, M. Böhle, A. Parchami-Araghi, B. Schiele, "Studying How to Efficiently and
        Effectively Guide Models with Explanations", ICCV 2023.

    Example:
        >>> energy(torch.tensor([[[3.0, 1.0, -2.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
        tensor([0.2500])
    """
    positive, t = evidence.flatten(1).clamp_min(0), mask.flatten(1)
    total = positive.mean(1)
    known = total > _LEAST_EVIDENCE
    return 1 - torch.where(known, (positive * t).mean(1) / torch.where(known, total, 1), 0)


def cosine(evidence: Tensor, mask: Tensor) -> Tensor:
    """Cosine distance of the signed evidence from the mask, 1 − z·t ÷ (‖z‖ ‖t‖).

    Args:
        evidence: (B, h, w) z, signed.
        mask: (B, h, w) t ≥ 0.

    Returns:
        (B,) in [0, 2].

    Reference:
        A. Parchami-Araghi, M. Böhle, S. Rao, B. Schiele, "Good Teachers Explain:
        Explanation-Enhanced Knowledge Distillation", ECCV 2024.

    Example:
        >>> cosine(torch.tensor([[[3.0, -4.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([0.4000])
    """
    similarity = functional.cosine_similarity(evidence.flatten(1), mask.flatten(1), 1, 1e-6)
    return 1 - similarity


EVIDENCE_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cells": cells,
    "evidence": evidence,
    "energy": energy,
    "cosine": cosine,
}
# Those that an image without a mark, whose mask is 1 everywhere, takes part in.
WHOLE_MASKS: frozenset[str] = frozenset({"cells", "evidence"})
