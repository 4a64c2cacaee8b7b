"""Normalization of saliency maps, the correlation of two maps, and deletion curves.

Maps are (B, h, w). If a map of a pair is constant (up to rounding, see `informative`) or not
finite, the correlation is undefined: `valid` is false and the value NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from preceptor.errors import InputError
from preceptor.saliency.cam import binary_logits
from preceptor.utils.memory import evaluating

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

    Each cell of a map is one block of pixels of its image. Equal cells go row by row, from the top
    left.

    Args:
        model: Function of (N, C, H, W) images that returns logits (N, classes), or a tuple that
            begins with them; one logit is that of class 1 against class 0. It is on the device of
            the images; a module is in evaluation mode meanwhile.
        images: (B, C, H, W) input of the model.
        maps: (B, h, w) with h ≤ H and w ≤ W, any scale.
        classes: (B,) int64, class of the probability.
        steps: Number of points of the curve, evenly spaced from no cell to all cells; at most the
            number of cells plus one.
        fill: Value of removed pixels in the model's input: 0 is the mean color for normalized
            images.
        batch_size: Number of images per forward pass.

    Returns:
        (points,) share of the cells that are removed, and (B, points) probability of the class;
        NaN for constant or non-finite maps.

    Raises:
        InputError: The shapes do not match, or `steps` is below 2 or `batch_size` below 1.

    Example:
        >>> def model(images):  # its probability is the share of the image that is visible
        ...     share = images.mean((1, 2, 3))
        ...     return torch.stack([share, 1 - share], 1).log()
        >>> maps = torch.tensor([[[3.0, 2.0], [1.0, 0.0]]])
        >>> deletion_curves(model, torch.ones(1, 1, 4, 4), maps, torch.tensor([0]))[1]
        tensor([[1.0000, 0.7500, 0.5000, 0.2500, 0.0000]])
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
