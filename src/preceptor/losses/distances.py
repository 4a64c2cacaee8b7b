"""Distances of the guided loss: between normalized maps, and of signed evidence from a mask.

l2, mse, l1, kl and dice take the model's map and the target, (B, h, w) in [0, 1] as returned by
`normalize`, and return (B,) distances ≥ 0, which are zero if and only if the maps are equal.

cells, evidence, energy and cosine take the evidence of the cells for the image's label and a mask,
both (B, h, w). The evidence of a cell is the decision map plus the bias, minus the entropy of the
softmax over the other classes, which is 0 for two classes; its mean is the log-odds
log p − log(1 − p) of the label. It is not normalized, because min-max normalization removes level
and sign. The mask is in [0, 1]: 1 where the evidence lies. It is 1 everywhere for an image that was
examined and has nothing to mark, because its class is defined by the absence of other evidence;
there, `cells` and `evidence` demand evidence for the label everywhere, and `energy` and `cosine`
are not computed.

Gradients flow into the first argument and are finite everywhere. Values of α are comparable only
within one distance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

MapDistance = Callable[[Tensor, Tensor], Tensor]
"""(B,) distances of the model's maps (B, h, w) from the targets (B, h, w), both in [0, 1]."""

# Added to every cell of a map in [0, 1] before the map becomes a distribution. With 1e-7, as in
# `agreement`, the gradient of an empty cell with a high target would be 10⁷.
_FLOOR = 0.01


def l2(model: Tensor, target: Tensor) -> Tensor:
    """L2 norm of the flattened difference, ‖s − t‖; its gradient has norm 1 for every image.

    A. Boyd, P. Tinsley, K. Bowyer, A. Czajka, "CYBORG: Blending Human Saliency Into the Loss
    Improves Deep Learning-Based Synthetic Face Detection", WACV 2023.
    """
    # The gradient of vector_norm at 0 is 0; of the root of a sum of squares it is NaN.
    norms: Tensor = torch.linalg.vector_norm((model - target).flatten(1), dim=1)
    return norms


def mse(model: Tensor, target: Tensor) -> Tensor:
    """Mean squared error 1/(h·w) Σ (s − t)², as in the authors' code; gradient 2‖s − t‖ ÷ (h·w)."""
    return (model - target).flatten(1).square().mean(1)


def l1(model: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error 1/(h·w) Σ |s − t|; the gradient of each differing cell is 1/(h·w)."""
    return (model - target).flatten(1).abs().mean(1)


def kl(model: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(q‖p) = Σ q log(q ÷ p) of the model's map p from the target q.

        p = (s + ε) ÷ Σ (s + ε),   q = (t + ε) ÷ Σ (t + ε),   ε = 0.01

    Cells that are high in the target and near zero in the model's map dominate. ε is large for two
    reasons: the gradient at a cell, 1 ÷ Σ(s + ε) − q ÷ (s + ε), stays below 1 ÷ ε = 100, so that
    one empty cell cannot dominate a batch; and a map of zeros becomes the uniform distribution,
    whereas without ε it would not be a distribution.

    S. Kullback, R. A. Leibler, "On Information and Sufficiency", 1951. As a saliency measure:
    Z. Bylinskii, T. Judd, A. Oliva, A. Torralba, F. Durand, "What do different evaluation
    metrics tell us about saliency models?", IEEE TPAMI 2019.
    """
    log_p, log_q = _log_distribution(model), _log_distribution(target)
    # For equal distributions, rounding may give a sum slightly below 0.
    terms = functional.kl_div(log_p, log_q, reduction="none", log_target=True)
    return terms.sum(1).clamp_min(0)


def _log_distribution(maps: Tensor) -> Tensor:
    """(B, h·w) log probabilities; as differences, since quotients overflow in half precision."""
    return (maps.flatten(1) + _FLOOR).log().log_softmax(1)


def dice(model: Tensor, target: Tensor) -> Tensor:
    """Dice distance 1 − 2 Σ st ÷ (Σ s² + Σ t²), which is independent of the area of the maps.

    Computed as Σ (s − t)² ÷ (Σ s² + Σ t²), which is the same, exact near 0, and 0 for two maps of
    zeros.

    F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net: Fully Convolutional Neural Networks for
    Volumetric Medical Image Segmentation", 3DV 2016.
    """
    s, t = model.flatten(1), target.flatten(1)
    sizes = s.square().sum(1) + t.square().sum(1)
    return (s - t).square().sum(1) / torch.where(sizes == 0, 1, sizes)


DISTANCES: dict[str, MapDistance] = {"l2": l2, "mse": mse, "l1": l1, "kl": kl, "dice": dice}


# Evidence and masks.

# Mean positive evidence of a cell below which its share inside the mask has no gradient: the
# gradient is 1 ÷ the sum of the evidence, and would not fit float32.
_LEAST_EVIDENCE = 1e-6


def cells(evidence: Tensor, mask: Tensor, mark_weight: float = 9.0) -> Tensor:
    """Weighted mean of the logistic loss of each cell, Σ wᵢ (log(1 + exp zᵢ) − tᵢ zᵢ) ÷ Σ wᵢ.

    w = 1 + `mark_weight` · t, so that a small mark is not outweighed by the cells around it.
    """
    z, t = evidence.flatten(1), mask.flatten(1)
    weight = 1 + mark_weight * t
    return (weight * (functional.softplus(z) - t * z)).sum(1) / weight.sum(1)


def evidence(evidence: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss of the evidence inside minus the evidence of either sign outside.

        log(1 + exp(−s)),   s = 1/(h·w) Σ (t z − (1 − t) |z|)

    Without an outside (t = 1 everywhere) it is the logistic loss of the label's log-odds.

    J. Setpal, "Contrastive-factored cross-entropy" (ContrastiveCAM), draft and MIT-licensed
    code in github.com/jinensetpal/contrastive-optimization, 2025; here with a soft mask.
    """
    z, t = evidence.flatten(1), mask.flatten(1)
    return functional.softplus(-(t * z - (1 - t) * z.abs()).mean(1))


def energy(evidence: Tensor, mask: Tensor) -> Tensor:
    """Share of the positive evidence outside the mask, 1 − Σ t max(z, 0) ÷ Σ max(z, 0).

    1 without positive evidence, where it has no gradient.

    S. Rao, M. Böhle, A. Parchami-Araghi, B. Schiele, "Studying How to Efficiently and
    Effectively Guide Models with Explanations", ICCV 2023.
    """
    positive, t = evidence.flatten(1).clamp_min(0), mask.flatten(1)
    total = positive.mean(1)
    enough = total > _LEAST_EVIDENCE
    return 1 - torch.where(enough, (positive * t).mean(1) / torch.where(enough, total, 1), 0)


def cosine(evidence: Tensor, mask: Tensor) -> Tensor:
    """Cosine distance of the signed evidence from the mask, 1 − z·t ÷ (‖z‖ ‖t‖).

    A. Parchami-Araghi, M. Böhle, S. Rao, B. Schiele, "Good Teachers Explain:
    Explanation-Enhanced Knowledge Distillation", ECCV 2024.
    """
    similarity = functional.cosine_similarity(evidence.flatten(1), mask.flatten(1), 1, 1e-6)
    return 1 - similarity


EVIDENCE_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cells": cells,
    "evidence": evidence,
    "energy": energy,
    "cosine": cosine,
}
# Distances that also use an image without a mark, whose mask is 1 everywhere.
WHOLE_MASKS: frozenset[str] = frozenset({"cells", "evidence"})
