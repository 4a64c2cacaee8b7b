"""Separable resampling of a batch of images: every output row is a weighted sum of a few rows.

The weights of one axis are taps: for each output row the indices of some input rows and what each
counts. An antialiased change of size and a blur are such sums, so one routine does both on any
device, an axis at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def triangle_taps(start: Tensor, extent: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
    """Taps that resize a part of each image, antialiased: the triangle filter of Pillow and torch.

    Where the part is larger than the output, the filter is as wide as two output pixels; where it
    is smaller, this is linear interpolation. Rows outside the part do not count.

    Args:
        start, extent: (n,) float, first row and number of rows of the part.
        count: Output rows.
        width: Taps a row, at least `taps_needed` of the largest extent; the same in all calls: how
            many terms a sum of weights has changes its last bit.

    Returns:
        (n, count, width) indices and weights; weights of a row add up to 1.
    """
    row = torch.arange(count, dtype=start.dtype, device=start.device)
    scale = (extent / count)[:, None, None]
    reach = scale.clamp_min(1.0)
    centre = (row[:, None] + 0.5) * scale  # (n, count, 1)
    first = torch.floor(centre - reach + 0.5)
    tap = first + torch.arange(width, dtype=start.dtype, device=start.device)
    weight = (1 - (tap + 0.5 - centre).abs() / reach).clamp_min_(0)
    last = extent[:, None, None] - 1
    weight = weight * ((tap >= 0) & (tap <= last))
    index = tap.clamp_min(0).minimum(last) + start[:, None, None]
    return index.long(), weight / weight.sum(2, keepdim=True)


def taps_needed(extent: int, count: int) -> int:
    """Most input rows that one of `count` output rows needs of a part with up to `extent` rows.

    Example:
        >>> taps_needed(5, 7), taps_needed(14, 7)
        (2, 4)
    """
    return math.ceil(2 * max(extent / count, 1.0))


def gaussian_taps(sigma: Tensor, count: int, radius: int, widest: int) -> tuple[Tensor, Tensor]:
    """Taps of a Gaussian blur that ends at ⌊3σ + ½⌋ pixels; borders are mirrored.

    Args:
        sigma: (n,) float, standard deviations in pixels; above 0.
        count: Rows.
        radius: At least `blur_radius` of the largest sigma.
        widest: At least `radius`, and the same in all calls: how many terms a sum of weights has
            changes its last bit.

    Returns:
        (n, count, 2 · radius + 1) indices and weights.
    """
    away = torch.arange(-widest, widest + 1, device=sigma.device)
    weight = torch.exp(-0.5 * (away / sigma[:, None]) ** 2)
    weight = weight * (away.abs() <= torch.floor(3 * sigma[:, None] + 0.5))
    weight = weight / weight.sum(1, keepdim=True)
    kept = slice(widest - radius, widest + radius + 1)
    index = (torch.arange(count, device=sigma.device)[:, None] + away[kept]).abs()
    index = (count - 1 - (count - 1 - index).abs()).clamp_min(0)
    shape = (len(sigma), count, 2 * radius + 1)
    return index.expand(shape), weight[:, None, kept].expand(shape)


def blur_radius(sigma: float) -> int:
    """Pixels from the centre of a blur to its end."""
    return int(3 * sigma + 0.5)


def weighted_rows(images: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the rows of each image.

    Each sum adds up its taps in order: its bits depend on no other image.

    Args:
        images: (n, R, F) float.
        index: (n, S, K) int64, rows.
        weight: (n, S, K) float.

    Returns:
        (n, S, F).
    """
    n, rows, features = images.shape
    count, width = index.shape[1:]
    base = torch.arange(n, device=images.device)[:, None, None] * rows
    sums: Tensor = F.embedding_bag(
        (index + base).reshape(n * count, width),
        images.reshape(n * rows, features),
        per_sample_weights=weight.reshape(n * count, width).to(images.dtype),
        mode="sum",
    )
    return sums.view(n, count, features)
