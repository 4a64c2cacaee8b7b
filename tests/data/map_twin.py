"""Resampling of a map by points: slow and obvious."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def point_value(
    grid: NDArray[np.float64],
    region: tuple[float, ...],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The piecewise-constant map at points of the source plane, 0 beyond its region."""
    height, width = grid.shape
    column = np.floor((x - region[0]) / (region[2] - region[0]) * width).astype(int)
    row = np.floor((y - region[1]) / (region[3] - region[1]) * height).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.where(inside, grid[row.clip(0, height - 1), column.clip(0, width - 1)], 0)


def twin(
    grid: NDArray[np.float64],
    region: tuple[float, ...],
    view: tuple[float, ...],
    shape: tuple[int, int],
    flip: bool = False,
    quarters: int = 0,
    fine: int = 60,
) -> NDArray[np.float64]:
    """Average a map over cells by walking fine points of the final view back to the source."""
    h, w = shape
    down, across = np.meshgrid(
        (np.arange(h * fine) + 0.5) / (h * fine),
        (np.arange(w * fine) + 0.5) / (w * fine),
        indexing="ij",
    )
    for _ in range(quarters):  # undo one counter-clockwise turn: the right edge came to the top
        across, down = 1 - down, across
    if flip:
        across = 1 - across
    x = view[0] + across * (view[2] - view[0])
    y = view[1] + down * (view[3] - view[1])
    values = point_value(grid, region, x, y)
    return values.reshape(h, fine, w, fine).mean((1, 3))


def turned_array(array: NDArray[np.generic], flip: bool, quarters: int) -> NDArray[np.generic]:
    """(H, W, …) flipped left and right, then turned counter-clockwise."""
    return np.rot90(array[:, ::-1] if flip else array, quarters)
