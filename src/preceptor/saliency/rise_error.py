"""Estimated error of a RISE map, from the differences between its blocks."""

from __future__ import annotations

import torch
from scipy.special import fdtri
from torch import Tensor

# Chance that blocks of pure noise agree as well as those of a map that counts as one. On grids of
# 7 × 7 such agreement is asked for by the tolerance anyway; on 2 × 2, three numbers agree easily:
# at each look 1 % of noise at tolerance 0.05, 13 % at 0.2.
CHANCE = 1e-4


def error_of(total: Tensor, squares: Tensor, number: int, freedom: int) -> Tensor:
    """(B,) 1 − estimated correlation of the mean map with its limit.

    Let b_k be the maps of the blocks minus their means over the cells, b̄ the mean of the b_k over
    k = 1 … K, and ν = Σ‖b_k − b̄‖² / (K (K − 1)) the noise variance of b̄. The reliability is
    1 − ν / ‖b̄‖², and the correlation is its square root. For K = 2 the reliability is the
    split-half correlation r corrected by the Spearman-Brown formula, 2r / (1 + r). For noise,
    ‖b̄‖² / ν follows an F distribution; below its upper quantile `CHANCE` the error is set to 1.
    """
    mean = (centred(total) / number).square().sum((1, 2))
    noise = (squares / number - mean).clamp_min(0) / (number - 1)
    reliability = 1 - noise / mean.clamp_min(torch.finfo(mean.dtype).tiny)
    beyond = float(fdtri(freedom, freedom * (number - 1), 1 - CHANCE))
    # Constant and non-finite maps are uninformative.
    known = (mean > 0) & reliability.isfinite() & (mean > beyond * noise)
    return 1 - torch.where(known, reliability.clamp(0, 1), 0).sqrt()


def centred(maps: Tensor) -> Tensor:
    """(..., h, w) maps minus their means over the cells."""
    return maps - maps.mean((1, 2), keepdim=True)
