"""Normalization of saliency maps, and the correlation of two maps.

Maps are (B, h, w). If a map of a pair is constant (up to rounding, see `informative`) or not
finite, the correlation is undefined: `valid` is false and the value NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from preceptor.errors import InputError

# A spread under this share of a map's largest value is rounding: float32 sums over a feature grid
# and area averages of a constant map stay below 1e-6 of it.
CONSTANT_TOLERANCE = 1e-5
# Below this spread a map counts as constant whatever its values: its gradient, 1 ÷ spread and more,
# would not fit float32, and infinities of both signs meet in a NaN. The smallest that any backbone
# gave was 1e-6.
LEAST_SPREAD = 1e-30


def informative(maps: Tensor) -> Tensor:
    """Whether each map is informative: finite everywhere and not constant.

    Args:
        maps: (B, h, w) of any type, bool and integers included.

    Returns:
        (B,) bool.

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
    (x, y), valid = _flat(a, b, normalized=normalized)
    return _masked(_pearson(x, y), valid)


def _flat(*maps: Tensor, normalized: bool = False) -> tuple[list[Tensor], Tensor]:
    """Maps as rows (B, h·w) scaled to [0, 1], and which pairs are valid; invalid ones are 0."""
    shapes = [tuple(each.shape) for each in maps]
    if len(set(shapes)) > 1 or len(shapes[0]) != 3 or 0 in shapes[0][1:]:
        raise InputError(
            f"maps must have the same shape (B, h, w); got {' and '.join(map(str, shapes))}"
        )
    rows, valid = [], torch.ones(shapes[0][0], dtype=torch.bool, device=maps[0].device)
    for each in maps:
        wide = each.dtype if each.dtype == torch.float64 else torch.float32
        own = each.detach().to(wide)
        known, row = informative(own), own.flatten(1)
        row = torch.where(known[:, None], row, torch.zeros_like(row))
        valid &= known
        rows.append(row if normalized else _unit(row))
    return rows, valid


def _unit(row: Tensor) -> Tensor:
    """Min-max normalization; it changes no measure, but limits rounding errors."""
    low, high = row.amin(dim=1, keepdim=True), row.amax(dim=1, keepdim=True)
    return (row - low) / _nonzero(high - low)


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    norms = x.norm(dim=1) * y.norm(dim=1)
    return ((x * y).sum(dim=1) / _nonzero(norms)).clamp(-1, 1)


def _nonzero(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def _masked(values: Tensor, valid: Tensor) -> Agreement:
    return Agreement(values.masked_fill(~valid, float("nan")), valid)
