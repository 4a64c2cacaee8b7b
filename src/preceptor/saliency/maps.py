"""Normalization of saliency maps, and the correlation of two maps.

Maps are (B, h, w). If a map of a pair is constant (up to rounding, see `informative`) or not
finite, the correlation is undefined: `valid` is false and the value NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from preceptor.data.geometry import CONSTANT_TOLERANCE, LEAST_SPREAD
from preceptor.errors import InputError


def informative(maps: Tensor) -> Tensor:
    """(B,) whether each of the maps (B, h, w), of any type, is finite everywhere and not constant.

    Example:
        >>> informative(torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]], [[float("nan"), 1.0]]]))
        tensor([ True, False, False])
    """
    maps = _floating(maps)
    low, high = maps.amin((-2, -1)), maps.amax((-2, -1))
    spread = high - low
    # A NaN or an infinity anywhere shows in the spread; so does a range too wide for the type.
    return ~_constant(low, high) & torch.isfinite(spread)


def normalize(maps: Tensor) -> Tensor:
    """Min-max normalization of each map: (m − min m) ÷ (max m − min m); zeros for a constant map.

    The gradient flows through minimum and maximum; that of a constant map is zero.

    Args:
        maps: (B, h, w); bool and integers are converted to float32.

    Returns:
        (B, h, w) in [0, 1].

    Example:
        >>> normalize(torch.tensor([[[1.0, 3.0], [2.0, 1.0]], [[4.0, 4.0], [4.0, 4.0]]]))
        tensor([[[0.0000, 1.0000],
                 [0.5000, 0.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000],
                 [0.0000, 0.0000]]])
    """
    maps = _floating(maps)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    constant = _constant(low, high)
    return torch.where(constant, 0.0, (maps - low) / torch.where(constant, 1.0, high - low))


def _constant(low: Tensor, high: Tensor) -> Tensor:
    """Whether a map is constant up to rounding; False for maps with NaN, which stay NaN."""
    spread, largest = high - low, torch.maximum(low.abs(), high.abs())
    return (spread <= CONSTANT_TOLERANCE * largest) | (spread <= LEAST_SPREAD)


def _floating(maps: Tensor) -> Tensor:
    return maps if maps.is_floating_point() else maps.float()


class Agreement(NamedTuple):
    """Correlation of each pair of maps, and whether it is defined (undefined values are NaN)."""

    values: Tensor
    valid: Tensor


def correlation(a: Tensor, b: Tensor, *, normalized: bool = False) -> Agreement:
    """Pearson's correlation CC = cov(a, b) / (σ_a σ_b) over the cells of each map.

    Values in [−1, 1]; symmetric in a and b. An InputError if the shapes differ.

    Example:
        >>> a = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]])
        >>> correlation(a, 5 - 2 * a).values
        tensor([-1., nan])
    """
    if a.shape != b.shape or a.ndim != 3 or 0 in a.shape[1:]:
        raise InputError(
            f"maps must have the same shape (B, h, w); got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    rows, valid = [], torch.ones(len(a), dtype=torch.bool, device=a.device)
    for maps in (a, b):
        own = maps.detach().to(torch.float64 if maps.dtype == torch.float64 else torch.float32)
        varies = informative(own)
        row = torch.where(varies[:, None], own.flatten(1), 0)
        if not normalized:  # it changes nothing, but limits rounding errors
            low, high = row.amin(dim=1, keepdim=True), row.amax(dim=1, keepdim=True)
            row = (row - low) / _nonzero(high - low)
        rows.append(row - row.mean(dim=1, keepdim=True))
        valid &= varies
    x, y = rows
    values = (x * y).sum(dim=1) / _nonzero(x.norm(dim=1) * y.norm(dim=1))
    return Agreement(values.clamp(-1, 1).masked_fill(~valid, float("nan")), valid)


def _nonzero(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, torch.ones_like(divisor), divisor)
