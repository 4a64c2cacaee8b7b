"""How far two normalised maps are apart: the distances that a guided loss can pull by.

Each takes the model's map and the target, (B, h, w) in [0, 1] as `normalise` leaves them, and
returns (B,) ≥ 0: zero where the two are equal and nowhere else. Gradients flow into the model's
map, are finite everywhere and zero where the two agree. α is comparable only within one distance:
how hard each pulls is measured in benchmarks/distance_pull.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from preceptor.config.run import Distance

# What every cell of a map gets before the map becomes a distribution, on the scale [0, 1]. With
# agreement's 1e-7 an empty cell under a mark would pull with a gradient of 10⁷.
_FLOOR = 0.01


def l2(model: Tensor, target: Tensor) -> Tensor:
    """‖s − t‖, the norm of the flattened difference: every image pulls with gradient norm 1.

    Args:
        model: (B, h, w) s in [0, 1].
        target: (B, h, w) t in [0, 1].

    Returns:
        (B,) in [0, √(h·w)].

    Reference:
        A. Boyd, P. Tinsley, K. Bowyer, A. Czajka, "CYBORG: Blending Human Saliency Into the Loss
        Improves Deep Learning-Based Synthetic Face Detection", WACV 2023.

    Example:
        >>> l2(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([1.4142])
    """
    # vector_norm passes 0 where the difference is 0; the root of a sum of squares would pass NaN.
    norms: Tensor = torch.linalg.vector_norm((model - target).flatten(1), dim=1)
    return norms


def mse(model: Tensor, target: Tensor) -> Tensor:
    """1/(h·w) Σ (s − t)², as the authors' released code computes it; pulls with 2‖s − t‖ ÷ (h·w).

    Args:
        model: (B, h, w) s in [0, 1].
        target: (B, h, w) t in [0, 1].

    Returns:
        (B,) in [0, 1].

    Example:
        >>> mse(torch.tensor([[[0.0, 0.5]]]), torch.tensor([[[0.0, 1.0]]]))
        tensor([0.1250])
    """
    return (model - target).flatten(1).square().mean(1)


def l1(model: Tensor, target: Tensor) -> Tensor:
    """1/(h·w) Σ |s − t|: all cells that differ pull alike, by however much they do.

    Args:
        model: (B, h, w) s in [0, 1].
        target: (B, h, w) t in [0, 1].

    Returns:
        (B,) in [0, 1].

    Example:
        >>> l1(torch.tensor([[[0.0, 0.5]]]), torch.tensor([[[0.0, 1.0]]]))
        tensor([0.2500])
    """
    return (model - target).flatten(1).abs().mean(1)


def kl(model: Tensor, target: Tensor) -> Tensor:
    """KL(q‖p) = Σ q log(q ÷ p): what is lost where the model's map p stands for the target q.

        p = (s + ε) ÷ Σ (s + ε),   q = (t + ε) ÷ Σ (t + ε),   ε = 0.01

    Cells that the target marks and the model leaves empty decide it. ε is large for two reasons:
    the gradient at a cell, 1 ÷ Σ(s + ε) − q ÷ (s + ε), stays under 1 ÷ ε = 100, so that one empty
    cell cannot outpull a batch; and a map of zeros is the uniform distribution, on either side,
    where without ε it would be none.

    Args:
        model: (B, h, w) s in [0, 1].
        target: (B, h, w) t in [0, 1].

    Returns:
        (B,) in [0, log(h·w · (1 + 1 ÷ ε))).

    Reference:
        S. Kullback, R. A. Leibler, "On Information and Sufficiency", 1951. As a saliency measure:
        Z. Bylinskii, T. Judd, A. Oliva, A. Torralba, F. Durand, "What do different evaluation
        metrics tell us about saliency models?", IEEE TPAMI 2019.

    Example:
        >>> kl(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([4.5246])
        >>> kl(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
        tensor([0.])
    """
    log_p, log_q = _log_distribution(model), _log_distribution(target)
    # Rounding may leave the sum of equal distributions just under 0.
    terms = functional.kl_div(log_p, log_q, reduction="none", log_target=True)
    return terms.sum(1).clamp_min(0)


def _log_distribution(maps: Tensor) -> Tensor:
    """(B, h·w) logarithms of rows that sum to 1; by quotients, half precision would overflow."""
    return (maps.flatten(1) + _FLOOR).log().log_softmax(1)


def dice(model: Tensor, target: Tensor) -> Tensor:
    """1 − 2 Σ st ÷ (Σ s² + Σ t²): how little of the two overlaps, whatever their area.

    Computed as Σ (s − t)² ÷ (Σ s² + Σ t²), which is the same, exact near 0, and 0 for two maps of
    zeros.

    Args:
        model: (B, h, w) s in [0, 1].
        target: (B, h, w) t in [0, 1].

    Returns:
        (B,) in [0, 1]: 1 for maps that do not overlap.

    Reference:
        F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net: Fully Convolutional Neural Networks for
        Volumetric Medical Image Segmentation", 3DV 2016.

    Example:
        >>> dice(torch.tensor([[[0.0, 1.0, 1.0]]]), torch.tensor([[[1.0, 1.0, 0.0]]]))
        tensor([0.5000])
    """
    s, t = model.flatten(1), target.flatten(1)
    sizes = s.square().sum(1) + t.square().sum(1)
    return (s - t).square().sum(1) / torch.where(sizes == 0, 1, sizes)


DISTANCES: dict[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": l2,
    "mse": mse,
    "l1": l1,
    "kl": kl,
    "dice": dice,
}
