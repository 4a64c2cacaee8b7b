"""Normalization of saliency maps, the correlation of two maps, and deletion curves.

Maps are (B, h, w). If a map of a pair is constant (up to rounding, see `informative`) or not
finite, the correlation is undefined: `valid` is false and the value NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from preceptor.data.geometry import CONSTANT_TOLERANCE, LEAST_SPREAD
from preceptor.errors import InputError
from preceptor.saliency.cam import binary_logits
from preceptor.utils.process import evaluating


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


# Deletion.

# Every cell of a 7 × 7 map, one at a time.
STEPS = 50
BATCH_SIZE = 64


def deletion_curves(
    model: Callable[[Tensor], Any],
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    steps: int = STEPS,
    fill: float = 0.0,
    batch_size: int = BATCH_SIZE,
) -> tuple[Tensor, Tensor]:
    """Deletion curves: the class probability as cells are removed, the most salient first.

    Each cell of a map (B, h, w) is one block of pixels of its image (B, C, H, W); equal cells go
    row by row. `model` returns logits (N, classes), or a tuple that begins with them, and is in
    evaluation mode meanwhile. The curve has `steps` points, evenly spaced from no cell to all; a
    removed pixel has the value `fill`, of which 0 is the mean color. Returns the (points,) share of
    the cells that are removed, and the (B, points) probability of the classes (B,); NaN for
    constant or non-finite maps.
    """
    fit = images.ndim == 4 and maps.ndim == 3 and classes.shape == (len(images),)
    fit = fit and len(maps) == len(images) and 0 not in maps.shape[1:]
    if not fit or maps.shape[1] > images.shape[2] or maps.shape[2] > images.shape[3]:
        raise InputError(
            f"images {tuple(images.shape)}, maps {tuple(maps.shape)} and classes "
            f"{tuple(classes.shape)} must be (B, C, H, W), (B, h, w) and (B,), with h ≤ H and w ≤ W"
        )
    if steps < 2 or batch_size < 1:
        raise InputError(f"steps is {steps}, at least 2; batch_size is {batch_size}, at least 1")
    device, wide = images.device, torch.float64 if images.dtype == torch.float64 else torch.float32
    maps, classes = maps.detach().to(device), classes.to(device)
    maps = maps if maps.is_floating_point() else maps.float()
    used = informative(maps).nonzero().flatten()
    order = maps[used].flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).view(-1, *maps.shape[1:])  # rank of each cell, 0 = the most salient
    cells = maps.shape[1] * maps.shape[2]
    points = min(steps, cells + 1)
    counts = torch.arange(points, device=device) * cells // (points - 1)
    rows, columns = (
        torch.arange(pixels, device=device) * side // pixels
        for side, pixels in zip(maps.shape[1:], images.shape[2:], strict=True)
    )
    curves = torch.zeros(len(used) * points, dtype=wide, device=device)
    with torch.no_grad(), evaluating(model):
        for start in range(0, len(curves), batch_size):
            part = torch.arange(start, min(start + batch_size, len(curves)), device=device)
            which, point = part // points, part % points
            reached = rank[which] < counts[point, None, None]
            batch = images[used[which]]
            batch.masked_fill_(reached[:, None, rows[:, None], columns], fill)
            output = model(batch)
            logits = output[0] if isinstance(output, tuple) else output
            chances = binary_logits(logits.to(wide)).softmax(1)
            curves[part] = chances.gather(1, classes[used[which], None])[:, 0]
    values = torch.full((len(maps), points), torch.nan, dtype=wide, device=device)
    values[used] = curves.view(-1, points)
    return counts.to(wide) / cells, values
