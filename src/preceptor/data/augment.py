"""Augmentation of training images, of a whole batch at once, on the CPU or a GPU.

`draw` gives each image a row of uniform numbers that depends only on (seed, epoch, position in the
epoch), `changes_of` decides its changes by them, `prepare` groups the images by operation, and
`apply` changes them: crop and resize; flip and quarter turns; the outside of maps; blur and
color. Each computes in float32 (crops of 8-bit images on a CPU in 8 bits) and rounds once. Blur
and color come last, so that they treat both sides of a map's border alike. The outside of a map m
in [0, 1], enlarged bilinearly to the image x, becomes

    x' = m · x + (1 − m) · f(x)

with f(x) noise, another image or the mean color, so that a network cannot rely on evidence outside
the maps. Backgrounds are exchanged by K. Xiao, L. Engstrom, A. Ilyas, A. Madry, "Noise or Signal:
The Role of Image Backgrounds in Object Recognition", ICLR 2021. Random numbers are outputs of
SplitMix64 in integers, the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from preceptor.config.training import Augmentation, OutsideKind
from preceptor.data.resampling import (
    blur_radius,
    gaussian_taps,
    largest,
    stored,
    taps_needed,
    triangle_taps,
    weighted_rows,
)

# Cells of a mask a side, where the stored maps have as many. Human maps are stored at 128 × 128.
MASK_SIDE = 32
# A spread under this share of the largest value is rounding, as in `preceptor.saliency.maps`.
_CONSTANT = 1e-5

Moved = TypeVar("Moved")

# Streams of the generator, and uniform numbers an image in each: a stream of its own for what was
# added later leaves the numbers of the other changes as they are.
_OF_THE_IMAGE, _OF_THE_OUTSIDE = (2, 12), (4, 2)
SIGMAS = 0.1, 2.0  # of a blur
_NOISE = 0.25  # standard deviation outside maps, as a fraction of the range of levels


def draw(seed: int, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 14) uniform random numbers in [0, 1) for (n,) positions in an epoch.

    SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014),
    started anew for every seed and epoch; a row depends only on its position.
    """
    parts = []
    for stream, count in (_OF_THE_IMAGE, _OF_THE_OUTSIDE):
        start = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0]
        counters = (positions[:, None] * count + np.arange(count)).astype(np.uint64)
        numbers = split_mix(start, counters) >> np.uint64(11)
        parts.append(numbers.astype(np.float64) * np.float64(2.0**-53))
    return np.concatenate(parts, axis=1)


def split_mix(
    start: np.uint64 | NDArray[np.uint64], counters: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The outputs of SplitMix64 at these positions, from 0, of the sequences of these starts."""
    with np.errstate(over="ignore"):  # all arithmetic is modulo 2⁶⁴
        value = start + (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class Changes:
    """Changes of each image of a batch."""

    crops: NDArray[np.int64]  # (B, 3) left, top and side of the square, in canvas pixels
    flips: NDArray[np.bool_]  # (B,) left-right, after the crop
    quarters: NDArray[np.int64]  # (B,) counter-clockwise turns after the flip, 0 to 3
    factors: NDArray[np.float64] | None  # (B, 3) of brightness, contrast and saturation
    sigmas: NDArray[np.float64]  # (B,) of the blur, in pixels of the result; 0 = no blur
    outside: NDArray[np.bool_]  # (B,) whether the outside of a map is changed
    keys: NDArray[np.uint64]  # (B,) below 2⁵³, starts of the random numbers of this change

    def boxes(self, canvases: NDArray[np.float64], side: int) -> NDArray[np.float64]:
        """(B, 4) boxes of the crops, given the boxes of their canvases of `side` pixels."""
        left_top, part = self.crops[:, :2] / side, self.crops[:, 2:] / side
        low, extent = canvases[:, :2], canvases[:, 2:] - canvases[:, :2]
        return np.concatenate([low + left_top * extent, low + (left_top + part) * extent], axis=1)

    def geometry(self, which: NDArray[np.int64]) -> Changes:
        """Crops, flips and quarter turns of some of the images, and no other change."""
        none = np.zeros(len(which))
        return Changes(
            self.crops[which],
            self.flips[which],
            self.quarters[which],
            None,
            none,
            none.astype(bool),
            none.astype(np.uint64),
        )


def changes_of(settings: Augmentation, numbers: NDArray[np.float64], side: int) -> Changes:
    """Changes of a batch by its (B, 14) numbers of `draw`, on canvases of a side in pixels."""
    sizes = np.full(len(numbers), side)
    if settings.crop_area < 1:
        areas = settings.crop_area + (1 - settings.crop_area) * numbers[:, 2]
        sizes = np.rint(side * np.sqrt(areas)).astype(np.int64).clip(1)
    left_top = (numbers[:, 3:5] * (side - sizes + 1)[:, None]).astype(np.int64)
    factors = 1 + settings.color * (2 * numbers[:, 5:8] - 1) if settings.color else None
    blurred = numbers[:, 8] < settings.blur
    least, most = SIGMAS
    outside, keys = np.zeros(len(numbers), bool), np.zeros(len(numbers), np.uint64)
    if settings.outside != "none":
        outside = numbers[:, 12] < settings.outside_rate
        keys = (numbers[:, 13] * 2.0**53).astype(np.uint64)
    return Changes(
        np.concatenate([left_top, sizes[:, None]], axis=1),
        (numbers[:, 0] < 0.5) & settings.flip,
        (numbers[:, 1] * 4).astype(np.int64) * settings.quarter_turns,
        factors,
        np.where(blurred, least + (most - least) * numbers[:, 9], 0.0),
        outside,
        keys,
    )


class Turned(NamedTuple):
    """Consecutive images of one orientation: transposed first, then flipped."""

    start: int
    stop: int
    transposed: bool  # x and y change places
    down: bool  # y runs backwards
    across: bool  # x runs backwards


class Blurred(NamedTuple):
    """Consecutive images that are all blurred, by a widest radius in pixels, or all not: 0."""

    start: int
    stop: int
    radius: int


class Prepared(NamedTuple):
    """Changes of a batch, ordered so that images with the same operations are consecutive.

    Operations are chosen by values on the host, so that `apply` never waits for the device.
    """

    size: int  # side of the result in pixels
    crops: NDArray[np.int64] | None  # (B, 3) left, top and side; None = canvases have the size
    turned: tuple[Turned, ...]
    blurred: tuple[Blurred, ...]
    colored: bool
    order: Tensor  # (B,) int64, positions in the batch
    places: Tensor  # (B,) int64, the place of each image of the batch in this order
    values: Tensor  # (B, 7) left, top, side, sigma, factors of brightness, contrast, saturation
    outside: Outside | None = None
    partners: Partners | None = None


class Partners(NamedTuple):
    """Other images that replace the outside of maps."""

    canvases: Tensor  # (n, H, H, C), one for each changed image
    prepared: Prepared  # the geometry of the changed images


def moved(value: Moved, move: Callable[[Tensor], Tensor]) -> Moved:
    """A named tuple with every tensor in it passed through `move`."""
    if isinstance(value, Tensor):
        return cast(Moved, move(value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return cast(Moved, type(value)(*(moved(part, move) for part in value)))
    return value


def prepare(
    changes: Changes,
    side: int,
    size: int,
    outside: Outside | None = None,
    partners: Tensor | None = None,
) -> Prepared:
    """Order the changes of a batch; (n, H, H, C) `partners` replace the outside for kind other."""
    count = len(changes.flips)
    # A quarter turn is a transposition followed by flips. With the flip before it, this says which
    # axes of the result run backwards.
    odd = changes.quarters % 2 == 1
    down = (changes.quarters % 3 > 0) ^ (changes.flips & odd)
    across = (changes.quarters >= 2) ^ (changes.flips & ~odd)
    blurred = changes.sigmas > 0
    order = np.lexsort((across, down, odd, blurred))
    orientations = np.column_stack([odd, down, across])[order]
    radii = np.array([blur_radius(sigma) for sigma in changes.sigmas[order]], np.int64)
    factors = np.ones((count, 3)) if changes.factors is None else changes.factors
    values = np.column_stack([changes.crops, changes.sigmas, factors])[order].astype(np.float32)
    crops, places = changes.crops[order], torch.from_numpy(np.argsort(order))
    outside_partners = None
    if outside is not None:
        if partners is not None:
            moves = changes.geometry(outside.places.numpy())
            outside_partners = Partners(partners, prepare(moves, side, size))
        outside = outside._replace(places=places[outside.places])
    whole = side == size and bool((crops[:, 2] == size).all())
    return Prepared(
        size,
        None if whole else crops,
        tuple(
            Turned(start, stop, *orientations[start].tolist())
            for start, stop in _runs(orientations)
        ),
        tuple(
            Blurred(start, stop, int(radii[start:stop].max()) if blurred[order[start]] else 0)
            for start, stop in _runs(blurred[order][:, None])
        ),
        changes.factors is not None,
        torch.from_numpy(order),
        places,
        torch.from_numpy(values),
        outside,
        outside_partners,
    )


def _runs(rows: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of the runs of equal rows."""
    borders = np.flatnonzero((rows[1:] != rows[:-1]).any(1)) + 1
    return list(pairwise([0, *borders.tolist(), len(rows)]))


_WIDEST = blur_radius(SIGMAS[1])
# The weights of red, green and blue in brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
# Bytes of float32 canvases that are computed together. On a CPU, a few images at a time stay in
# the cache.
_CPU_BYTES, _GPU_BYTES = 5_000_000, 2**28


@torch.no_grad()
def apply(canvases: Tensor, prepared: Prepared) -> Tensor:
    """Change (B, H, H, C) images, uint8 or float in [0, 1], to (B, size, size, C).

    Crops are resized through a triangle filter, turned, and rounded to whole levels where their
    type has such. A blur is a Gaussian; brightness b, contrast c and saturation s make of each
    pixel p, with its luma l and the image's mean luma m,

        b · (c · (s · p + (1 − s) · l) + (1 − c) · m),

    clipped once, at the end. Of other than three channels, luma is their mean, and s = 1.
    """
    most = _most(canvases)
    images = _moved(canvases, prepared)
    if prepared.outside is not None:
        others = None
        if prepared.partners is not None:
            moves = prepared.partners.prepared
            others = _moved(prepared.partners.canvases, moves).index_select(0, moves.places)
        change_outside(images, prepared.outside, others, most)
    for blurred in prepared.blurred:
        if prepared.colored or blurred.radius:
            for start in range(blurred.start, blurred.stop, most):
                part = slice(start, min(start + most, blurred.stop))
                _shade(images[part], prepared.values[part], blurred.radius, prepared.colored)
    return images.index_select(0, prepared.places)


def _most(canvases: Tensor) -> int:
    """Number of images that are computed together."""
    _, side, _, channels = canvases.shape
    limit = _CPU_BYTES if canvases.device.type == "cpu" else _GPU_BYTES
    return max(1, limit // (4 * side * side * channels))


def _moved(canvases: Tensor, prepared: Prepared) -> Tensor:
    """(B, size, size, C) crops, flipped and turned, in the order of `prepared`."""
    if prepared.crops is None:
        images = canvases.index_select(0, prepared.order)
    elif canvases.device.type == "cpu" and canvases.dtype == torch.uint8:
        images = _resized_by_torch(canvases, prepared, prepared.crops)
    else:
        images = _resized(canvases, prepared, _most(canvases))
    for turned in prepared.turned:
        _turn(images[turned.start : turned.stop], turned)
    return images


def _resized_by_torch(canvases: Tensor, prepared: Prepared, crops: NDArray[np.int64]) -> Tensor:
    """The crops of uint8 canvases on a CPU, in order, by torch's 8-bit kernel: twice as fast."""
    size = [prepared.size] * 2
    images = canvases.new_empty((len(canvases), *size, canvases.shape[3]))
    for place, (index, (left, top, extent)) in enumerate(
        zip(prepared.order.tolist(), crops.tolist(), strict=True)
    ):
        crop = canvases[index : index + 1, top : top + extent, left : left + extent]
        resized = F.interpolate(crop.permute(0, 3, 1, 2), size, mode="bilinear", antialias=True)
        images[place] = resized[0].permute(1, 2, 0)
    return images


def _resized(canvases: Tensor, prepared: Prepared, most: int) -> Tensor:
    """The crops of canvases of any type on any device, in their order, `most` at a time."""
    count, side, _, channels = canvases.shape
    size, values = prepared.size, prepared.values
    width = taps_needed(side, size)
    columns, column_weights = triangle_taps(values[:, 0], values[:, 2], size, width)
    rows, row_weights = triangle_taps(values[:, 1], values[:, 2], size, width)
    images = canvases.new_empty((count, size, size, channels))
    for start in range(0, count, most):
        part = slice(start, min(start + most, count))
        resized = canvases.index_select(0, prepared.order[part]).float().flatten(2)
        resized = weighted_rows(resized, rows[part], row_weights[part])
        # From rows (y) of columns and channels (x, c) to columns of channels and rows (x, c, y):
        # the columns are what is summed next.
        resized = resized.transpose(1, 2).reshape(-1, side, channels * size)
        resized = weighted_rows(resized, columns[part], column_weights[part])
        result = stored(resized.view(-1, size, channels, size), canvases.dtype)
        images[part] = result.permute(0, 3, 1, 2)
    return images


def _turn(images: Tensor, group: Turned) -> None:
    """Transpose and flip (n, S, S, C) images, in place."""
    turned = images
    if group.transposed:  # plane by plane: faster on a CPU than all channels at once
        turned = torch.stack([plane.transpose(1, 2) for plane in images.unbind(3)], 3)
    if axes := [axis for axis, flip in ((1, group.down), (2, group.across)) if flip]:
        turned = turned.flip(axes)
    if turned is not images:
        images.copy_(turned)


def _shade(images: Tensor, values: Tensor, radius: int, colored: bool) -> None:
    """Blur (n, S, S, C) images, where `radius` is not 0, and change their colors, in place."""
    count, size, _, channels = images.shape
    # Rows, channels, columns (y, c, x): all channels of a row are summed in one go, and each is
    # contiguous for what differs by channel.
    levels = torch.stack(images.unbind(3), 2).float()
    if radius:
        taps = gaussian_taps(values[:, 3], size, radius, _WIDEST)
        levels = weighted_rows(levels.flatten(2), *taps).view(count, size, channels, size)
        levels = levels.transpose(1, 3).reshape(count, size, channels * size)  # (x, c, y)
        levels = weighted_rows(levels, *taps).view(count, size, channels, size)
    if colored:
        if images.dtype == torch.uint8:
            levels.round_()  # sums of whole numbers are exact: no order of adding changes the mean
        levels = _recolored(levels, values[:, 4:7])
    planes = stored(levels, images.dtype).unbind(2)
    torch.stack([plane.transpose(1, 2) if radius else plane for plane in planes], 3, out=images)


def _recolored(levels: Tensor, factors: Tensor) -> Tensor:
    """Change the colors of (n, y, C, x) levels by (n, 3) factors, in place."""
    channels = levels.shape[2]
    shares = _LUMA if channels == 3 else (1 / channels,) * channels
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    sums = levels.sum(3).double().sum(1)  # (n, C)
    mean = torch.zeros_like(sums[:, 0])
    for place, share in enumerate(shares):
        mean += share * sums[:, place]
    mean = (mean / levels[0, :, 0].numel()).to(levels.dtype)[:, None, None, None]
    grey = brightness * (1 - contrast) * mean
    if channels != 3:
        return levels.mul_(brightness * contrast).add_(grey)
    luma = levels[:, :, 0] * shares[0]
    luma.add_(levels[:, :, 1], alpha=shares[1]).add_(levels[:, :, 2], alpha=shares[2])
    luma = luma[:, :, None].mul_(brightness * contrast * (1 - saturation)).add_(grey)
    return levels.mul_(brightness * contrast * saturation).add_(luma)


class Outside(NamedTuple):
    """Changes outside the maps of n images of a batch."""

    kind: OutsideKind
    places: Tensor  # (n,) int64, positions in the batch
    masks: Tensor  # (n, h, w) float32 in [0, 1]
    keys: Tensor  # (n,) int64 starts of the random numbers


def masks_of(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(B, h, w) maps scaled to [0, 1], and (B,) whether each is finite and not constant."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    usable = torch.isfinite(spread) & (spread > _CONSTANT * torch.maximum(low.abs(), high.abs()))
    return (maps - low) / torch.where(usable, spread, 1), usable.flatten()


def partners_of(
    keys: NDArray[np.uint64], positions: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """(n,) position of another of all `count` training images, each equally likely."""
    share = keys.astype(np.float64) * 2.0**-53
    step = 1 + np.minimum((share * (count - 1)).astype(np.int64), max(count - 2, 0))
    partners: NDArray[np.int64] = (positions + step) % count
    return partners


def change_outside(images: Tensor, outside: Outside, others: Tensor | None, most: int) -> None:
    """Change (B, S, S, C) images outside their maps, in place, for kind other by `others`."""
    size = images.shape[1]
    for start in range(0, len(outside.places), most):
        part = slice(start, start + most)
        places = outside.places[part]
        levels = images.index_select(0, places).float()
        masks = F.interpolate(outside.masks[part, None], (size, size), mode="bilinear")
        changed = torch.lerp(
            _replacement(levels, outside, part, others, largest(images.dtype)),
            levels,
            masks[:, 0, :, :, None].expand_as(levels),
        )
        images.index_copy_(0, places, stored(changed, images.dtype))


def _replacement(
    levels: Tensor, outside: Outside, part: slice, others: Tensor | None, highest: float
) -> Tensor:
    """f(x) of (n, S, S, C) levels."""
    if outside.kind == "other":
        assert others is not None
        return others[part].float()
    if outside.kind == "mean":
        mean = levels.sum((1, 2), keepdim=True, dtype=torch.float64) / levels.shape[1] ** 2
        return mean.float().expand_as(levels)
    noise = normal(outside.keys[part], levels[0].numel()).view_as(levels)
    return noise.mul_(_NOISE * highest).add_(levels).clamp_(0, highest)


def normal(keys: Tensor, count: int) -> Tensor:
    """Standard normal random numbers, (n, count): quantiles of 2²³ outputs of SplitMix64."""
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
