"""Augmentation of training images, of a whole batch at once, on the CPU or a GPU.

Each image has a row of uniform numbers that depends only on (seed, epoch, position in the epoch),
not on the device, batch borders, number of processes or interruptions. `changes_of` computes the
changes of each image from these numbers, `prepare` groups the images by operation, and `apply`
changes them: crop and resize; flip and quarter turns; blur and color; JPEG compression. Each of the
four computes in float32 (crops of 8-bit images on a CPU in 8 bits) and rounds once to the levels of
the image type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from preceptor.config.run import Augmentation
from preceptor.data.jpeg import cosines, jpeg_round_trip, quantisation_tables
from preceptor.data.resampling import (
    blur_radius,
    gaussian_taps,
    taps_needed,
    triangle_taps,
    weighted_rows,
)

_NUMBERS = 12  # uniform numbers an image
_SIGMAS = 0.1, 2.0  # of a blur
_WIDEST = blur_radius(_SIGMAS[1])
# The weights of red, green and blue in brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
# Bytes of float32 canvases that are computed together. On a CPU, a few images at a time stay in
# the cache.
_CPU_BYTES, _GPU_BYTES = 5_000_000, 2**28


def draw(seed: int, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform random numbers in [0, 1) for positions in an epoch.

    The counter-based generator SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
    number generators", OOPSLA 2014), started anew for every seed and epoch.

    Args:
        seed, epoch: Random seed and epoch, not negative.
        positions: (n,) positions in the epoch.

    Returns:
        (n, 12) numbers; a row depends only on its position.

    Example:
        >>> some, all_of_them = draw(1, 0, np.array([3, 8])), draw(1, 0, np.arange(10))
        >>> bool((some == all_of_them[[3, 8]]).all())
        True
    """
    start = np.random.SeedSequence([seed, epoch, 2]).generate_state(1, np.uint64)[0]
    counters = (positions[:, None] * _NUMBERS + np.arange(_NUMBERS)).astype(np.uint64)
    numbers = _split_mix(start, counters) >> np.uint64(11)
    return numbers.astype(np.float64) * np.float64(2.0**-53)


def _split_mix(start: np.uint64, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The outputs of SplitMix64 at these positions of its sequence, from 0."""
    with np.errstate(over="ignore"):  # all arithmetic is modulo 2⁶⁴
        value = start + (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class Changes:
    """Changes of each image of a batch.

    Args:
        crops: (B, 3) int64 left, top and side of the cropped square, in canvas pixels.
        flips: (B,) bool, left-right flips, after the crop.
        quarters: (B,) int64, number of counter-clockwise quarter turns after the flip, 0 to 3.
        factors: (B, 3) factors of brightness, contrast and saturation; None = no change of color.
        sigmas: (B,) standard deviation of the Gaussian blur, in pixels of the result; 0 = no blur.
        qualities: (B,) int64 quality of the JPEG compression; 0 = no compression.
    """

    crops: NDArray[np.int64]
    flips: NDArray[np.bool_]
    quarters: NDArray[np.int64]
    factors: NDArray[np.float64] | None
    sigmas: NDArray[np.float64]
    qualities: NDArray[np.int64]

    def boxes(self, canvases: NDArray[np.float64], side: int) -> NDArray[np.float64]:
        """(B, 4) boxes of the crops, given the boxes of their canvases of `side` pixels."""
        left_top, part = self.crops[:, :2] / side, self.crops[:, 2:] / side
        low, extent = canvases[:, :2], canvases[:, 2:] - canvases[:, :2]
        return np.concatenate([low + left_top * extent, low + (left_top + part) * extent], axis=1)


def changes_of(settings: Augmentation, numbers: NDArray[np.float64], side: int) -> Changes:
    """Changes of a batch.

    Args:
        settings: Augmentation settings.
        numbers: (B, 12) numbers of `draw`.
        side: Side of the canvases in pixels.
    """
    sizes = np.full(len(numbers), side)
    if settings.crop_area < 1:
        areas = settings.crop_area + (1 - settings.crop_area) * numbers[:, 2]
        sizes = np.rint(side * np.sqrt(areas)).astype(np.int64).clip(1)
    left_top = (numbers[:, 3:5] * (side - sizes + 1)[:, None]).astype(np.int64)
    factors = 1 + settings.color * (2 * numbers[:, 5:8] - 1) if settings.color else None
    blurred = numbers[:, 8] < settings.blur
    least, most = _SIGMAS
    compressed = numbers[:, 10] < settings.jpeg
    return Changes(
        np.concatenate([left_top, sizes[:, None]], axis=1),
        (numbers[:, 0] < 0.5) & settings.flip,
        (numbers[:, 1] * 4).astype(np.int64) * settings.quarter_turns,
        factors,
        np.where(blurred, least + (most - least) * numbers[:, 9], 0.0),
        np.where(compressed, 30 + (66 * numbers[:, 11]).astype(np.int64), 0),
    )


class _Turned(NamedTuple):
    """Consecutive images of one orientation: transposed first, then flipped.

    Args:
        start, stop: Their places in the order.
        transposed: Whether x and y change places.
        down, across: Whether y or x run backwards.
    """

    start: int
    stop: int
    transposed: bool
    down: bool
    across: bool


class _Blurred(NamedTuple):
    """Consecutive images that are all blurred, by a widest radius in pixels, or all not: 0."""

    start: int
    stop: int
    radius: int


@dataclass(frozen=True)
class Prepared:
    """Changes of a batch, ordered so that images with the same operations are consecutive.

    The choice of operations depends only on values on the host, so that `apply` never waits for the
    device.

    Args:
        size: Side of the result in pixels.
        crops: (B, 3) left, top and side, in this order; None = canvases have the right size.
        turned: All images by orientation.
        blurred: All images by blur.
        colored: Whether colors change.
        order: (B,) int64, positions in the batch.
        places: (B,) int64, the place of each image of the batch in this order.
        values: (B, 7) float32, in this order: left, top, side, sigma, and the factors of
            brightness, contrast and saturation.
        tables: (n, 2, 8, 8) quantisation tables of the last n images of the order, which are those
            that are compressed.
        transform: (8, 8) of `jpeg.cosines`.
    """

    size: int
    crops: NDArray[np.int64] | None
    turned: tuple[_Turned, ...]
    blurred: tuple[_Blurred, ...]
    colored: bool
    order: Tensor
    places: Tensor
    values: Tensor
    tables: Tensor
    transform: Tensor

    def moved(self, move: Callable[[Tensor], Tensor]) -> Prepared:
        """The same with every tensor passed through `move`."""
        return replace(
            self,
            order=move(self.order),
            places=move(self.places),
            values=move(self.values),
            tables=move(self.tables),
            transform=move(self.transform),
        )


def prepare(changes: Changes, side: int, size: int) -> Prepared:
    """Order the changes of a batch of canvases of `side` pixels, which become `size` pixels."""
    count = len(changes.flips)
    # A quarter turn is a transposition followed by flips. With the flip before it, this says which
    # axes of the result run backwards.
    odd = changes.quarters % 2 == 1
    down = (changes.quarters % 3 > 0) ^ (changes.flips & odd)
    across = (changes.quarters >= 2) ^ (changes.flips & ~odd)
    blurred, compressed = changes.sigmas > 0, changes.qualities > 0
    order = np.lexsort((across, down, odd, blurred, compressed))
    orientations = np.column_stack([odd, down, across])[order]
    radii = np.array([blur_radius(sigma) for sigma in changes.sigmas[order]], np.int64)
    factors = np.ones((count, 3)) if changes.factors is None else changes.factors
    values = np.column_stack([changes.crops, changes.sigmas, factors])[order].astype(np.float32)
    crops = changes.crops[order]
    whole = side == size and bool((crops[:, 2] == size).all())
    return Prepared(
        size,
        None if whole else crops,
        tuple(
            _Turned(start, stop, *orientations[start].tolist())
            for start, stop in _runs(orientations)
        ),
        tuple(
            _Blurred(start, stop, int(radii[start:stop].max()) if blurred[order[start]] else 0)
            for start, stop in _runs(blurred[order][:, None])
        ),
        changes.factors is not None,
        torch.from_numpy(order),
        torch.from_numpy(np.argsort(order)),
        torch.from_numpy(values),
        torch.from_numpy(quantisation_tables(changes.qualities[order][count - compressed.sum() :])),
        torch.from_numpy(cosines()),
    )


def _runs(rows: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of the runs of equal rows."""
    borders = np.flatnonzero((rows[1:] != rows[:-1]).any(1)) + 1
    return list(pairwise([0, *borders.tolist(), len(rows)]))


@torch.no_grad()
def apply(canvases: Tensor, prepared: Prepared) -> Tensor:
    """Change a batch of images.

    Crops become the result's size through a triangle filter: linear interpolation where they are
    smaller, antialiased where they are larger. Images are then turned, and rounded to whole levels
    where their type has such. A blur is a Gaussian; brightness b, contrast c and saturation s make
    of each pixel p, with its luma l and the image's mean luma m,

        b · (c · (s · p + (1 − s) · l) + (1 − c) · m),

    clipped once, at the end. Of other than three channels, luma is their mean, and s = 1.

    Args:
        canvases: (B, H, H, C) uint8 or uint16, or float in [0, 1].
        prepared: On the same device.

    Returns:
        (B, size, size, C) of the same type.
    """
    count, side, _, channels = canvases.shape
    limit = _CPU_BYTES if canvases.device.type == "cpu" else _GPU_BYTES
    most = max(1, limit // (4 * side * side * channels))
    if prepared.crops is None:
        images = _chosen(canvases, prepared.order)
    elif canvases.device.type == "cpu" and canvases.dtype == torch.uint8:
        images = _resized_by_torch(canvases, prepared, prepared.crops)
    else:
        images = _resized(canvases, prepared, most)
    for turned in prepared.turned:
        _turn(_signed(images[turned.start : turned.stop]), turned)
    for blurred in prepared.blurred:
        if prepared.colored or blurred.radius:
            for start in range(blurred.start, blurred.stop, most):
                part = slice(start, min(start + most, blurred.stop))
                _shade(images[part], prepared.values[part], blurred.radius, prepared.colored)
    first = count - len(prepared.tables)
    for start in range(first, count, most):
        tables = prepared.tables[start - first : start - first + most]
        _compress(images[start : start + most], tables, prepared.transform)
    return _chosen(images, prepared.places)


def _resized_by_torch(canvases: Tensor, prepared: Prepared, crops: NDArray[np.int64]) -> Tensor:
    """The crops of uint8 canvases on a CPU, by torch's own kernel, in their order.

    It rounds to whole levels after the first axis too: 8-bit arithmetic is two to three times as
    fast as float, and differs from it by one level.
    """
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
        found = _chosen(canvases, prepared.order[part]).float().flatten(2)
        found = weighted_rows(found, rows[part], row_weights[part])
        # From rows (y) of columns and channels (x, c) to columns of channels and rows (x, c, y):
        # the columns are what is summed next.
        found = found.transpose(1, 2).reshape(-1, side, channels * size)
        found = weighted_rows(found, columns[part], column_weights[part])
        stored = _stored(found.view(-1, size, channels, size), canvases.dtype)
        images[part] = stored.permute(0, 3, 1, 2)
    return images


def _signed(images: Tensor) -> Tensor:
    """The same bits in a type that torch can flip and choose from: it lacks both for uint16."""
    return images.view(torch.int16) if images.dtype == torch.uint16 else images


def _chosen(images: Tensor, which: Tensor) -> Tensor:
    return _signed(images).index_select(0, which).view(images.dtype)


def _turn(images: Tensor, group: _Turned) -> None:
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
        if images.dtype in (torch.uint8, torch.uint16):
            levels.round_()  # sums of whole numbers are exact: no order of adding changes the mean
        levels = _recolored(levels, values[:, 4:7])
    planes = _stored(levels, images.dtype).unbind(2)
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


def _compress(images: Tensor, tables: Tensor, transform: Tensor) -> None:
    """Compress and decompress (n, S, S, C) images, in place."""
    scale = 255 / _top(images.dtype)
    levels = images.permute(0, 3, 1, 2).float().contiguous().mul_(scale).round_()
    levels = jpeg_round_trip(levels, tables, transform).div_(scale)
    images.copy_(_stored(levels, images.dtype).permute(0, 2, 3, 1))


def _top(kind: torch.dtype) -> float:
    """The largest level of a type of images."""
    return {torch.uint8: 255.0, torch.uint16: 65535.0}.get(kind, 1.0)


def _stored(levels: Tensor, kind: torch.dtype) -> Tensor:
    """Float levels as the type that images are stored in; changes `levels`."""
    levels = levels.clamp_(0, _top(kind))
    if kind not in (torch.uint8, torch.uint16):
        return levels.to(kind)
    # By way of a signed type: torch's conversion from float to uint8 is not vectorised.
    return levels.round_().to(torch.int16 if kind == torch.uint8 else torch.int32).to(kind)
