"""Augmentation of training images, of a whole batch at once, on the CPU or a GPU.

`preceptor.data.draws` decides the changes of each image, `preceptor.data.augment` groups
the images by operation, and `apply` changes them: crop and resize; flip and quarter turns; the
outside of maps (`preceptor.data.outside`); blur and color; JPEG compression. Each of the five
computes in float32 (crops of 8-bit images on a CPU in 8 bits) and rounds once to the levels of the
image type.

Geometry comes first, since maps are defined on the source image and move with it. Changes of color,
blur and compression come last, so that they treat the inside and the outside of a map alike, and
the border between the two is no clue that survives in one of them only.
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

from preceptor.data.draws import SIGMAS, Changes
from preceptor.data.outside import Outside, change_outside
from preceptor.data.resampling import (
    blur_radius,
    chosen,
    cosines,
    gaussian_taps,
    jpeg_round_trip,
    largest,
    quantisation_tables,
    signed,
    stored,
    taps_needed,
    triangle_taps,
    weighted_rows,
)


class Turned(NamedTuple):
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


class Blurred(NamedTuple):
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
        outside: Changes outside the maps, whose places are those of this order; None = none.
        partners: Images that replace the outside, for kind other; None = none.
    """

    size: int
    crops: NDArray[np.int64] | None
    turned: tuple[Turned, ...]
    blurred: tuple[Blurred, ...]
    colored: bool
    order: Tensor
    places: Tensor
    values: Tensor
    tables: Tensor
    transform: Tensor
    outside: Outside | None = None
    partners: Partners | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Prepared:
        """The same with every tensor passed through `move`."""
        return replace(
            self,
            order=move(self.order),
            places=move(self.places),
            values=move(self.values),
            tables=move(self.tables),
            transform=move(self.transform),
            outside=None if self.outside is None else self.outside.moved(move),
            partners=None if self.partners is None else self.partners.moved(move),
        )

    def without_outside(self) -> Prepared:
        """The same without changes outside maps."""
        return replace(self, outside=None, partners=None)

    def changed_outside(self) -> Tensor:
        """(B,) bool, whether each image of the batch is changed outside its map."""
        found = torch.zeros(len(self.order), dtype=torch.bool, device=self.order.device)
        if self.outside is None:
            return found
        return found.index_fill_(0, self.order.index_select(0, self.outside.places), True)


class Partners(NamedTuple):
    """Other images that replace the outside of maps.

    Args:
        canvases: (n, H, H, C) canvases, one for each changed image.
        prepared: Their crops, flips and quarter turns, which are those of the changed images.
    """

    canvases: Tensor
    prepared: Prepared

    def moved(self, move: Callable[[Tensor], Tensor]) -> Partners:
        """The same with every tensor passed through `move`."""
        return Partners(move(self.canvases), self.prepared.moved(move))


def prepare(
    changes: Changes,
    side: int,
    size: int,
    outside: Outside | None = None,
    partners: Tensor | None = None,
) -> Prepared:
    """Order the changes of a batch.

    Args:
        changes: Changes of B images.
        side, size: Sides of the canvases and of the result, in pixels.
        outside: Changes outside the maps, whose places are positions in the batch.
        partners: (n, H, H, C) canvases of the images that replace the outside, or None.
    """
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
    crops, places = changes.crops[order], torch.from_numpy(np.argsort(order))
    found = None
    if outside is not None:
        if partners is not None:
            moves = changes.geometry(outside.places.numpy())
            found = Partners(partners, prepare(moves, side, size))
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
        torch.from_numpy(quantisation_tables(changes.qualities[order][count - compressed.sum() :])),
        torch.from_numpy(cosines()),
        outside,
        found,
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
    count, most = len(canvases), _most(canvases)
    images = _moved(canvases, prepared)
    if prepared.outside is not None:
        others = None
        if prepared.partners is not None:
            moves = prepared.partners.prepared
            others = chosen(_moved(prepared.partners.canvases, moves), moves.places)
        change_outside(images, prepared.outside, others, most)
    for blurred in prepared.blurred:
        if prepared.colored or blurred.radius:
            for start in range(blurred.start, blurred.stop, most):
                part = slice(start, min(start + most, blurred.stop))
                _shade(images[part], prepared.values[part], blurred.radius, prepared.colored)
    first = count - len(prepared.tables)
    for start in range(first, count, most):
        tables = prepared.tables[start - first : start - first + most]
        _compress(images[start : start + most], tables, prepared.transform)
    return chosen(images, prepared.places)


def _most(canvases: Tensor) -> int:
    """Number of images that are computed together."""
    _, side, _, channels = canvases.shape
    limit = _CPU_BYTES if canvases.device.type == "cpu" else _GPU_BYTES
    return max(1, limit // (4 * side * side * channels))


def _moved(canvases: Tensor, prepared: Prepared) -> Tensor:
    """(B, size, size, C) crops, flipped and turned, in the order of `prepared`."""
    if prepared.crops is None:
        images = chosen(canvases, prepared.order)
    elif canvases.device.type == "cpu" and canvases.dtype == torch.uint8:
        images = _resized_by_torch(canvases, prepared, prepared.crops)
    else:
        images = _resized(canvases, prepared, _most(canvases))
    for turned in prepared.turned:
        _turn(signed(images[turned.start : turned.stop]), turned)
    return images


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
        found = chosen(canvases, prepared.order[part]).float().flatten(2)
        found = weighted_rows(found, rows[part], row_weights[part])
        # From rows (y) of columns and channels (x, c) to columns of channels and rows (x, c, y):
        # the columns are what is summed next.
        found = found.transpose(1, 2).reshape(-1, side, channels * size)
        found = weighted_rows(found, columns[part], column_weights[part])
        result = stored(found.view(-1, size, channels, size), canvases.dtype)
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
        if images.dtype in (torch.uint8, torch.uint16):
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


def _compress(images: Tensor, tables: Tensor, transform: Tensor) -> None:
    """Compress and decompress (n, S, S, C) images, in place."""
    scale = 255 / largest(images.dtype)
    levels = images.permute(0, 3, 1, 2).float().contiguous().mul_(scale).round_()
    levels = jpeg_round_trip(levels, tables, transform).div_(scale)
    images.copy_(stored(levels, images.dtype).permute(0, 2, 3, 1))
