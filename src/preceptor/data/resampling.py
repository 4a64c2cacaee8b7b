"""Operations on the pixels of a batch: levels, taps, area resampling, turns."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from preceptor.data.geometry import MAP_SIDE


def largest(kind: torch.dtype) -> float:
    """The largest level of a type of images: uint8, or float."""
    return 255.0 if kind == torch.uint8 else 1.0


def stored(levels: Tensor, kind: torch.dtype) -> Tensor:
    """Float levels as the type that images are stored in; changes `levels`."""
    levels = levels.clamp_(0, largest(kind))
    # By way of int16: torch's conversion from float to uint8 is not vectorized.
    return levels.round_().to(torch.int16).to(kind) if kind == torch.uint8 else levels.to(kind)


def triangle_taps(start: Tensor, extent: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
    """Taps that resize a part of each image by the triangle filter of Pillow and torch.

    Returns (n, count, width) indices and weights for parts from (n,) `start` on. `width` is at
    least `taps_needed`, and the same in all calls: the number of terms changes a sum's last bit.
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
    """Most input rows that one of `count` output rows needs of a part with up to `extent` rows."""
    return math.ceil(2 * max(extent / count, 1.0))


def gaussian_taps(sigma: Tensor, count: int, radius: int, widest: int) -> tuple[Tensor, Tensor]:
    """Taps of a Gaussian blur that ends at ⌊3σ + ½⌋ pixels; borders are mirrored.

    Returns (n, count, 2 · radius + 1) indices and weights; `widest` is the same in all calls.
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
    """(n, S, F) weighted sums of the rows of (n, R, F) images, by (n, S, K) index and weight.

    Each sum adds up its taps in order: its bits depend on no other image.
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


def _overlap(
    cells: int, low: Tensor, high: Tensor, own_low: Tensor, own_high: Tensor, own_cells: int
) -> Tensor:
    """(B, cells, own) share of each target cell along one axis that each source cell covers."""
    ticks = torch.arange(cells + 1, dtype=low.dtype, device=low.device) / cells
    edges = low[:, None] + ticks * (high - low)[:, None]  # (B, cells + 1)
    own_ticks = torch.arange(own_cells + 1, dtype=low.dtype, device=low.device) / own_cells
    own_edges = own_low[:, None] + own_ticks * (own_high - own_low)[:, None]
    upper = torch.minimum(edges[:, 1:, None], own_edges[:, None, 1:])
    lower = torch.maximum(edges[:, :-1, None], own_edges[:, None, :-1])
    return (upper - lower).clamp_min_(0) / (edges[:, 1:] - edges[:, :-1])[:, :, None]


def resample(maps: Tensor, regions: Tensor, boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h, w) means of (B, H, W) maps over the cells of a grid: exact area resampling.

    A map is constant in each of its cells and 0 outside its region; (B, 4) `regions` and `boxes`
    are the parts of the source plane that maps and grids cover, (x0, y0, x1, y1).
    """
    height, width = maps.shape[-2:]
    # Edges are differences of nearby numbers: float64 keeps a cell's share exact to 1e-12.
    own, to = regions.double(), boxes.double()
    rows = _overlap(grid[0], to[:, 1], to[:, 3], own[:, 1], own[:, 3], height).to(maps.dtype)
    columns = _overlap(grid[1], to[:, 0], to[:, 2], own[:, 0], own[:, 2], width).to(maps.dtype)
    return rows @ maps @ columns.transpose(1, 2)


def turn_maps(
    maps: Tensor, flips: Tensor | NDArray[np.bool_], quarters: Tensor | NDArray[np.int64]
) -> Tensor:
    """Flip and turn each of (B, h, w) maps; h = w if any number of quarters is odd."""
    flips, quarters = torch.as_tensor(flips), torch.as_tensor(quarters)
    turned = torch.where(flips[:, None, None], maps.flip(-1), maps)
    for quarter in (1, 2, 3):
        chosen = quarters == quarter
        if bool(chosen.any()):
            turned = torch.where(
                chosen[:, None, None], torch.rot90(turned, quarter, (-2, -1)), turned
            )
    return turned


# Error of a mean of float32 values, relative to the largest: smaller differences are rounding.
_ROUNDING = 1e-6
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def on_unit_square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decoded map on the 128 × 128 grid of its unit square, minus its minimum.

    `values` float32 of shape (H, W); returns float32 of shape (128, 128).
    """
    lowest = values.min()
    if lowest > 0 and lowest == values.max():
        return np.ones((MAP_SIDE, MAP_SIDE), np.float32)
    values = values - lowest  # before sums are taken: a constant map is then exactly 0
    grid = resample(torch.from_numpy(values)[None], _UNIT, _UNIT, (MAP_SIDE, MAP_SIDE))[0]
    grid -= grid.min()
    if float(grid.max()) <= _ROUNDING * float(values.max()):
        grid.zero_()
    maps: NDArray[np.float32] = grid.numpy()
    return maps


def stored_map(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Decoded map on its unit square, scaled to the full range of uint8."""
    grid = on_unit_square(values)
    stretched: NDArray[np.float32] = grid * np.float32(255 / max(float(grid.max()), 1e-12))
    return np.rint(stretched).astype(np.uint8)
