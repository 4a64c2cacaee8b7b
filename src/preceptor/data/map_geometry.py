"""Area resampling, flips and quarter turns of maps as tensors; see `geometry` for the plane."""

from __future__ import annotations

import torch
from torch import Tensor

from preceptor.data.geometry import Turn


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
    """Exact area resampling of maps to a grid, separable and batched.

    Cell (i, j) of the grid gets the mean of the piecewise-constant map over the rectangle that the
    cell covers in the source plane; a map is 0 outside its region.

    Args:
        maps: (B, H, W) floats.
        regions: (B, 4) part of the source plane that each map covers, (x0, y0, x1, y1).
        boxes: (B, 4) part of the source plane that each grid covers.
        grid: Size (h, w) of the grid.

    Returns:
        (B, h, w).

    Example:
        >>> m = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
        >>> unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> resample(m, unit, unit, (1, 4))
        tensor([[[0., 0., 1., 1.]]])
    """
    height, width = maps.shape[-2:]
    # Edges are differences of nearby numbers: float64 keeps a cell's share exact to 1e-12.
    own, to = regions.double(), boxes.double()
    rows = _overlap(grid[0], to[:, 1], to[:, 3], own[:, 1], own[:, 3], height).to(maps.dtype)
    columns = _overlap(grid[1], to[:, 0], to[:, 2], own[:, 0], own[:, 2], width).to(maps.dtype)
    return rows @ maps @ columns.transpose(1, 2)


def turn_maps(maps: Tensor, flips: Tensor, quarters: Tensor) -> Tensor:
    """Apply a separate turn to each of (B, h, w) maps; h = w if any number of quarters is odd.

    Args:
        maps: (B, h, w).
        flips: (B,) bool.
        quarters: (B,) integers 0 to 3.
    """
    turned = torch.where(flips[:, None, None], maps.flip(-1), maps)
    for quarter in (1, 2, 3):
        chosen = quarters == quarter
        if bool(chosen.any()):
            turned = torch.where(
                chosen[:, None, None], torch.rot90(turned, quarter, (-2, -1)), turned
            )
    return turned


def turn_all(values: Tensor, turn: Turn) -> Tensor:
    """Apply one turn to the last two axes of (..., H, W); H = W if the number of quarters is odd.

    Example:
        >>> turn_all(torch.tensor([[1, 2], [3, 4]]), Turn(quarters=1))
        tensor([[2, 4],
                [1, 3]])
    """
    turned = values.flip(-1) if turn.flip else values
    return torch.rot90(turned, turn.quarters, (-2, -1)) if turn.quarters else turned
