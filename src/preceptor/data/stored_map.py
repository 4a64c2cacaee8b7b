"""Human maps as they are stored in a cache: 128 × 128 values on the unit square of their image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.data.canvas_format import MAP_SIDE
from preceptor.data.map_geometry import resample

# Error of a mean of float32 values, relative to the largest: smaller differences are rounding.
_ROUNDING = 1e-6
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def on_unit_square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decoded map on the 128 × 128 grid of its unit square, minus its minimum.

    Therefore a bright background does not stand out against the margins of a letterboxed canvas. A
    constant map above 0 marks the whole image, and is 1 everywhere.

    Args:
        values: float32 of shape (H, W), see `decode_map`.

    Returns:
        float32 of shape (128, 128), from 0 up.
    """
    lowest = values.min()
    if lowest > 0 and lowest == values.max():
        return np.ones((MAP_SIDE, MAP_SIDE), np.float32)
    values = values - lowest  # before sums are taken: a constant map is then exactly 0
    grid = resample(torch.from_numpy(values)[None], _UNIT, _UNIT, (MAP_SIDE, MAP_SIDE))[0]
    grid -= grid.min()
    if float(grid.max()) <= _ROUNDING * float(values.max()):
        grid.zero_()
    found: NDArray[np.float32] = grid.numpy()
    return found


def stored_map(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Decoded map on its unit square, scaled to the full range of uint8.

    The scaling prevents that small or faint marks are lost by rounding; guidance normalizes maps in
    any case.
    """
    grid = on_unit_square(values)
    stretched: NDArray[np.float32] = grid * np.float32(255 / max(float(grid.max()), 1e-12))
    return np.rint(stretched).astype(np.uint8)
