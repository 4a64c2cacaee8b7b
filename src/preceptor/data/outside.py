"""Changes outside the maps of a batch: maps in input space instead of in the loss.

    x' = m · x + (1 − m) · f(x)

x is an image after crop, flip and quarter turns, m its map in [0, 1], scaled by its minimum and
maximum and enlarged bilinearly to the image, and f(x) a version of the image without what the map
leaves out: blurred, noisy, with its tiles permuted, another image, or its mean color. A network
that is trained on x' cannot rely on evidence outside the maps. Where m is 1, pixels do not change.

Blurring outside human maps is due to fingerprint attack detection (arXiv 2505.02176); tiles are
permuted by J. Viviano, B. Simpson, F. Dutil, Y. Bengio, J. P. Cohen, "Saliency is a Possible Red
Herring When Diagnosing Poor Generalization", ICLR 2021; backgrounds are exchanged by K. Xiao, L.
Engstrom, A. Ilyas, A. Madry, "Noise or Signal: The Role of Image Backgrounds in Object
Recognition", ICLR 2021.

All random numbers of an image are outputs of SplitMix64 that start at the image's own key, computed
in integers: they are the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from preceptor.config.training import Augmentation, OutsideKind
from preceptor.data.draws import split_mix
from preceptor.data.resampling import (
    blur_radius,
    chosen,
    gaussian_taps,
    largest,
    resample,
    signed,
    stored,
)

# Cells of a mask a side, where the stored maps have as many. Human maps are stored at 128 × 128.
MASK_SIDE = 32
# A spread under this share of the largest value is rounding, as in `preceptor.saliency.normalise`.
_CONSTANT = 1e-5


class Outside(NamedTuple):
    """Changes outside the maps of n images of a batch.

    Args:
        kind: blur, noise, shuffle, other or mean.
        amount: Strength, see `Augmentation`.
        places: (n,) int64 places of the images among those of the batch.
        masks: (n, h, w) float32 in [0, 1].
        keys: (n,) int64 starts of the random numbers.
        weights: (S, S) float32 weights of a blur of S rows, for kind blur.
        tiles: (n, T, T) int64 tile that is shown in each place, for kind shuffle.
        lines: (T, S) int64 line of each tile that is shown in each line, for kind shuffle.
    """

    kind: OutsideKind
    amount: float
    places: Tensor
    masks: Tensor
    keys: Tensor
    weights: Tensor | None = None
    tiles: Tensor | None = None
    lines: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Outside:
        """The same with every tensor passed through `move`."""
        return Outside(
            *(move(value) if isinstance(value, Tensor) else value for value in self)  # type: ignore[arg-type]
        )


def masks_of(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of maps.

    Args:
        maps: (B, h, w) float.

    Returns:
        (B, h, w) maps scaled by their minimum and maximum to [0, 1], and (B,) bool, whether the map
        is finite and not constant; the mask of another is not to be used.
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    usable = torch.isfinite(spread) & (spread > _CONSTANT * torch.maximum(low.abs(), high.abs()))
    return (maps - low) / torch.where(usable, spread, 1), usable.flatten()


def prepare_outside(
    settings: Augmentation,
    places: NDArray[np.int64],
    masks: Tensor,
    keys: NDArray[np.uint64],
    size: int,
) -> Outside:
    """Host work of the changes outside maps.

    Args:
        settings: Augmentation whose `outside` is not none.
        places: (n,) positions in the batch of the images that are changed.
        masks: (n, h, w) masks in [0, 1].
        keys: (n,) starts of the random numbers.
        size: Side of the images in pixels.
    """
    kind, amount = settings.outside, settings.outside_amount
    weights = tiles = lines = None
    if kind == "blur":
        weights = _blur_weights(amount * size, size)
    if kind == "shuffle":
        count = min(round(1 / amount), size)
        tiles, lines = _shuffled_tiles(masks, keys, count), _tile_lines(count, size)
    return Outside(
        kind,
        amount,
        torch.from_numpy(places),
        masks,
        torch.from_numpy(keys.astype(np.int64)),
        weights,
        tiles,
        lines,
    )


def partners_of(
    keys: NDArray[np.uint64], positions: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """(n,) position of another image for the image at each position, all equally likely.

    Any of the `count` training images, not only of the batch: the partner depends neither on the
    borders of batches nor on the number of devices.

    Example:
        >>> partners_of(np.array([0, 2**52], np.uint64), np.array([3, 3]), 5)
        array([4, 1])
    """
    share = keys.astype(np.float64) * 2.0**-53
    step = 1 + np.minimum((share * (count - 1)).astype(np.int64), max(count - 2, 0))
    found: NDArray[np.int64] = (positions + step) % count
    return found


def change_outside(images: Tensor, outside: Outside, others: Tensor | None, most: int) -> None:
    """Change images outside their maps, in place.

    Args:
        images: (B, S, S, C) uint8 or uint16, or float in [0, 1].
        outside: Changes of n of the images, on the same device.
        others: (n, S, S, C) images that replace the outside, for kind other.
        most: Number of images that are computed together.
    """
    size = images.shape[1]
    for start in range(0, len(outside.places), most):
        part = slice(start, start + most)
        places = outside.places[part]
        levels = chosen(images, places).float()
        masks = F.interpolate(outside.masks[part, None], (size, size), mode="bilinear")
        changed = torch.lerp(
            _replacement(levels, outside, part, others, largest(images.dtype)),
            levels,
            masks[:, 0, :, :, None].expand_as(levels),
        )
        signed(images).index_copy_(0, places, signed(stored(changed, images.dtype)))


def _replacement(
    levels: Tensor, outside: Outside, part: slice, others: Tensor | None, highest: float
) -> Tensor:
    """f(x) of (n, S, S, C) levels."""
    if outside.weights is not None:
        return _blurred(levels, outside.weights)
    if outside.tiles is not None and outside.lines is not None:
        return _with_tiles(levels, outside.tiles[part], outside.lines)
    if outside.kind == "other":
        assert others is not None
        return others[part].float()
    if outside.kind == "mean":
        mean = levels.sum((1, 2), keepdim=True, dtype=torch.float64) / levels.shape[1] ** 2
        return mean.float().expand_as(levels)
    noise = normal(outside.keys[part], levels[0].numel()).view_as(levels)
    return noise.mul_(outside.amount * highest).add_(levels).clamp_(0, highest)


def normal(keys: Tensor, count: int) -> Tensor:
    """Standard normal random numbers: quantiles at 2²³ levels of the outputs of SplitMix64.

    Args:
        keys: (n,) int64 start of each sequence.
        count: Numbers of each sequence.

    Returns:
        (n, count) float32.
    """
    # Unsigned arithmetic in a signed type: products wrap around, and the bits that a shift to the
    # right draws in are cleared.
    counters = torch.arange(1, count + 1, device=keys.device)
    value = keys[:, None] + counters * (0x9E3779B97F4A7C15 - 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)):
        value ^= (value >> shift) & (2 ** (64 - shift) - 1)
        value *= factor
    value ^= (value >> 31) & (2**33 - 1)
    level = ((value >> 41) & (2**23 - 1)).float()
    return level.add_(0.5).mul_(2.0**-22).sub_(1).erfinv_().mul_(2**0.5)


@lru_cache(maxsize=4)
def _blur_weights(sigma: float, size: int) -> Tensor:
    """(size, size) weights of a Gaussian blur of so many rows; borders are mirrored."""
    radius = blur_radius(sigma)
    index, weight = gaussian_taps(torch.tensor([sigma]), size, radius, radius)
    return torch.zeros(size, size).scatter_add_(1, index[0], weight[0].contiguous())


def _blurred(levels: Tensor, weights: Tensor) -> Tensor:
    """Blur (n, S, S, C) levels along both axes.

    A product with all rows: as fast for a wide blur as for a narrow one.
    """
    every = weights.expand(len(levels), *weights.shape)
    for _ in range(2):
        rows = torch.bmm(every, levels.flatten(2)).view_as(levels)
        levels = rows.transpose(1, 2)
    return levels


def _shuffled_tiles(masks: Tensor, keys: NDArray[np.uint64], count: int) -> Tensor:
    """(n, T, T) tile that is shown in each place.

    Tiles whose mean mask is under ½ are permuted among themselves, so that nothing from inside a
    map is shown outside it; the others stay.
    """
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64).expand(len(masks), 4)
    inside = (resample(masks, unit, unit, (count, count)) >= 0.5).flatten(1).numpy()
    index = np.arange(count**2, dtype=np.uint64)
    random = split_mix(keys[:, None], index[None]) >> np.uint64(1)
    last = np.uint64(2**63)
    outside_first = np.argsort(inside, axis=1, kind="stable")
    at_random = np.argsort(np.where(inside, last + index, random), axis=1, kind="stable")
    tiles = np.empty_like(at_random)
    np.put_along_axis(tiles, outside_first, at_random, axis=1)
    return torch.from_numpy(tiles).view(-1, count, count)


@lru_cache(maxsize=4)
def _tile_lines(count: int, size: int) -> Tensor:
    """(count, size) line of each tile that is shown in each line of the image.

    Tiles differ by one line where `count` does not divide `size`; a smaller one then lacks a line,
    and a larger one shows one twice.
    """
    edges = np.rint(np.arange(count + 1) * size / count).astype(np.int64)
    heights, line = np.diff(edges), np.arange(size)
    own = np.searchsorted(edges, line, side="right") - 1
    share = (2 * (line - edges[own]) + 1)[None] * heights[:, None] // (2 * heights[own])[None]
    return torch.from_numpy(edges[:-1, None] + share)


def _with_tiles(levels: Tensor, tiles: Tensor, lines: Tensor) -> Tensor:
    """Show other tiles of (n, S, S, C) levels."""
    n, size, _, channels = levels.shape
    count = len(lines)
    place = torch.arange(size, device=levels.device)
    # The tile of each line: each tile shows its own lines where it stays.
    own = (lines == place).int().argmax(0)
    shown = tiles[:, own][:, :, own]  # (n, S, S)
    rows = lines.take((shown // count) * size + place[:, None])
    columns = lines.take((shown % count) * size + place)
    index = (rows * size + columns).view(n, size * size, 1).expand(-1, -1, channels)
    return levels.view(n, size * size, channels).gather(1, index).view_as(levels)
