"""Deletion and insertion: what a model's score says about a map, without any human map.

Cells of the map are removed from the image, or put into an empty one, from the most salient to the
least, and the probability of the class is followed. A map that shows what the model uses makes it
fall early (deletion) or rise early (insertion).

V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from preceptor.errors import InputError
from preceptor.runtime.modes import evaluating
from preceptor.saliency.agreement import Agreement
from preceptor.saliency.normalise import informative

# Every cell of a 7 × 7 map, one at a time.
STEPS = 50
BATCH_SIZE = 64


def deletion(
    model: Callable[[Tensor], Any],
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    steps: int = STEPS,
    fill: float = 0.0,
    batch_size: int = BATCH_SIZE,
) -> Agreement:
    """Area under the class probability while cells are removed, the most salient first.

        ∫₀¹ p_c(image without the share x of the cells) dx, by the trapezoid rule

    Each cell of a map is one block of pixels of its image. Equal cells go row by row, from the top
    left.

    Args:
        model: (N, C, H, W) to logits (N, classes), or to a tuple that begins with them; on the
            device of the images. A module is put in evaluation mode and back as it was.
        images: (B, C, H, W) as the model takes them.
        maps: (B, h, w) with h ≤ H and w ≤ W, any scale.
        classes: (B,) int64, whose probability is followed.
        steps: Points of the curve, spread evenly over the cells, none and all included; no more
            than there are.
        fill: What removed pixels become, as the model takes them: 0 is the mean colour where
            images are normalised.
        batch_size: Images that the model sees at once, and that are held at once beside `images`.

    Returns:
        Values in [0, 1], lower is better. A map that is constant or not finite has no order:
        `valid` is false there and the value NaN.

    Raises:
        InputError: The shapes do not fit, or fewer than two steps or one image at once.

    Example:
        >>> def model(images):  # its probability is the share of the image that is there
        ...     share = images.mean((1, 2, 3))
        ...     return torch.stack([share, 1 - share], 1).log()
        >>> maps = torch.tensor([[[3.0, 2.0], [1.0, 0.0]]])
        >>> deletion(model, torch.ones(1, 1, 4, 4), maps, torch.tensor([0])).values
        tensor([0.5000])
    """
    return _area(model, images, maps, classes, steps, fill, batch_size, insert=False)


def insertion(
    model: Callable[[Tensor], Any],
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    steps: int = STEPS,
    fill: float = 0.0,
    batch_size: int = BATCH_SIZE,
) -> Agreement:
    """Area under the class probability while cells are put into an empty image.

        ∫₀¹ p_c(the share x of the cells, the most salient, on an image of `fill`) dx

    Args:
        model, images, maps, classes, steps, fill, batch_size: See `deletion`.

    Returns:
        Values in [0, 1], higher is better; NaN and not `valid` as in `deletion`.

    Raises:
        InputError: As in `deletion`.

    Example:
        >>> def model(images):  # looks at the top left alone
        ...     return torch.stack([9 * images[:, 0, 0, 0], torch.zeros(len(images))], 1)
        >>> maps = torch.tensor([[[3.0, 2.0], [1.0, 0.0]]])
        >>> image, first = torch.ones(1, 1, 4, 4), torch.tensor([0])
        >>> good, bad = (insertion(model, image, m, first).values for m in (maps, -maps))
        >>> good > bad
        tensor([True])
    """
    return _area(model, images, maps, classes, steps, fill, batch_size, insert=True)


def _area(
    model: Callable[[Tensor], Any],
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    steps: int,
    fill: float,
    batch_size: int,
    *,
    insert: bool,
) -> Agreement:
    _check(images, maps, classes, steps, batch_size)
    device, wide = images.device, torch.float64 if images.dtype == torch.float64 else torch.float32
    maps, classes = maps.detach().to(device), classes.to(device)
    maps = maps if maps.is_floating_point() else maps.float()
    valid = informative(maps)
    used = valid.nonzero().flatten()
    order = maps[used].flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).view(-1, *maps.shape[1:])  # of each cell, 0 the most salient
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
            emptied = ~reached if insert else reached
            batch = images[used[which]]
            batch.masked_fill_(emptied[:, None, rows[:, None], columns], fill)
            output = model(batch)
            logits = output[0] if isinstance(output, tuple) else output
            chances = logits.to(wide).softmax(1)
            curves[part] = chances.gather(1, classes[used[which], None])[:, 0]
    values = torch.full((len(maps),), torch.nan, dtype=wide, device=device)
    values[used] = torch.trapezoid(curves.view(-1, points), counts.to(wide) / cells, dim=1)
    return Agreement(values, valid)


def _check(images: Tensor, maps: Tensor, classes: Tensor, steps: int, batch_size: int) -> None:
    batch = len(images)
    fit = (
        images.ndim == 4
        and maps.ndim == 3
        and len(maps) == batch
        and classes.shape == (batch,)
        and 0 < maps.shape[1] <= images.shape[2]
        and 0 < maps.shape[2] <= images.shape[3]
    )
    if not fit:
        raise InputError(
            f"images {tuple(images.shape)}, maps {tuple(maps.shape)} and classes "
            f"{tuple(classes.shape)} must be (B, C, H, W), (B, h, w) and (B,), with h ≤ H and w ≤ W"
        )
    if steps < 2:
        raise InputError(f"steps is {steps}; a curve needs 2 points or more")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 or more")
