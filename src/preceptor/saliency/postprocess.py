"""Post-processing of guiding maps on the model's grid: blur, power, threshold, dilation, shapes.

All operations are symmetric in the axes and directions, so that on square grids they commute with
flips and quarter turns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from preceptor.config.maps import PostProcessing
from preceptor.saliency.normalise import normalise


def post_process(maps: Tensor, settings: PostProcessing) -> Tensor:
    """Blur, power, threshold, dilation and box or hull of maps, in this order.

    Maps are normalized before and after: without normalization, a threshold would remove a narrow
    peak that was blurred.

    Args:
        maps: (B, h, w) of any scale.
        settings: Operations; the defaults only normalize.

    Returns:
        (B, h, w) in [0, 1]; zeros for a constant map, including a box or hull of all cells; NaN
        for a map with a NaN, and zeros for a map with an infinite value.

    Reference:
        C. R. Crum, S. Webster, A. Czajka, "Grains of Saliency: Optimizing Saliency-based Training
        of Biometric Attack Detection Models", IJCB 2024.

    Example:
        >>> maps = torch.tensor([[[0.0, 2.0, 4.0, 8.0]]])
        >>> post_process(maps, PostProcessing(power=2))
        tensor([[[0.0000, 0.0625, 0.2500, 1.0000]]])
        >>> post_process(maps, PostProcessing(threshold=0.4))
        tensor([[[0.0000, 0.0000, 0.5000, 1.0000]]])
        >>> post_process(maps, PostProcessing(threshold=0.6, dilate=0.25))
        tensor([[[0., 0., 1., 1.]]])
        >>> post_process(maps, PostProcessing(threshold=0.4, shape="box"))
        tensor([[[0., 0., 1., 1.]]])
    """
    maps = normalise(maps)
    if settings.blur > 0:
        rows, columns = (_gaussian(side, settings.blur, maps) for side in maps.shape[-2:])
        maps = normalise(rows @ maps @ columns.T)
    if settings.power != 1:
        maps = maps.clamp_min(0) ** settings.power
    if settings.threshold > 0:
        maps = torch.where(maps < settings.threshold, 0, maps)
    if settings.dilate > 0:
        maps = _dilated(maps, settings.dilate)
    if settings.shape != "map":
        inside = (_box if settings.shape == "box" else _hull)(maps > 0)
        unusable = ~torch.isfinite(maps).all(-1).all(-1)
        maps = inside.to(maps.dtype).masked_fill(unusable[:, None, None], math.nan)
    return normalise(maps)


def _gaussian(side: int, sigma: float, like: Tensor) -> Tensor:
    """(side, side) weights of a blur of `sigma` sides; each row sums to 1, also at the border."""
    places = torch.arange(side, device=like.device, dtype=torch.float64) / side
    weights = torch.exp(-((places[:, None] - places[None]) ** 2) / (2 * sigma**2))
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


def _dilated(maps: Tensor, share: float) -> Tensor:
    """(B, h, w): the maximum over a square of radius `share` sides; along rows, then columns."""
    rows, columns = (_radius(share, side) for side in maps.shape[-2:])
    along = functional.max_pool2d(maps[:, None], (2 * rows + 1, 1), 1, (rows, 0))
    return functional.max_pool2d(along, (1, 2 * columns + 1), 1, (0, columns))[:, 0]


def _radius(share: float, side: int) -> int:
    """Radius in whole cells, rounded half up, from one cell to the side of the map."""
    return min(max(1, math.floor(share * side + 0.5)), max(1, side - 1))


def _box(marked: Tensor) -> Tensor:
    """(B, h, w) bool: the bounding box of the marked cells of each map."""
    return _between(marked.any(2))[:, :, None] & _between(marked.any(1))[:, None, :]


def _between(marked: Tensor) -> Tensor:
    """(B, n) bool: from the first to the last marked entry."""
    return (marked.cumsum(1) > 0) & (marked.flip(1).cumsum(1) > 0).flip(1)


def _hull(marked: Tensor) -> Tensor:
    """(B, h, w) bool: the cells whose centers lie in the convex hull of the marked cells' centers.

    The left and the right edge of the hull are computed from the first and the last marked cell of
    each row, exactly, in integers.
    """
    width = marked.shape[2]
    columns = torch.arange(width, device=marked.device)
    last = torch.where(marked, columns, -1).amax(2)
    mirrored = torch.where(marked, columns.flip(0), -1).amax(2)
    right, left = _envelope(last, width), width - 1 - _envelope(mirrored, width)
    return (left[:, :, None] <= columns) & (columns <= right[:, :, None])


def _envelope(heights: Tensor, most: int) -> Tensor:
    """(B, h) integer parts of the upper concave envelope of each row of heights; −1 = empty.

    At each position it is the maximum over all chords from a height at or before the position to
    one at or after it.
    """
    length = heights.shape[1]
    # So low that no chord from it lies above 0 anywhere.
    heights = torch.where(heights < 0, -(most + 1) * (length + 1), heights)
    places = torch.arange(length, device=heights.device)
    highest = []
    for place in range(length):
        before, after = place - places[: place + 1, None], places[place:] - place
        at_once = before + after == 0  # both ends here
        chords = (
            heights[:, : place + 1, None] * (after + at_once) + heights[:, None, place:] * before
        )
        highest.append(chords.div(before + after + at_once, rounding_mode="floor").amax((1, 2)))
    return torch.stack(highest, 1).clamp_min(-1)
