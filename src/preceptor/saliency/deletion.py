"""Deletion: evaluation of saliency maps by the model's scores.

Cells are removed from the image, from the most to the least salient, and the probability of the
class is computed after each step. If a map shows what the model uses, the probability falls early.

V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from preceptor.errors import InputError
from preceptor.saliency.cam import binary_logits
from preceptor.saliency.maps import informative
from preceptor.utils.memory import evaluating

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
