"""Sizes of human marks compared with the cells of a feature grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preceptor.data.cache import ImageSource

# Maps that are looked at; more would change the share by less than two percentage points.
_SAMPLE = 500


def small_marks(
    images: ImageSource, rows: NDArray[np.int64], grid: tuple[int, int]
) -> tuple[int, int]:
    """Number of human maps that mark less than half a cell of a grid, and number looked at.

    The marked area of a map is that of its values from half of its maximum on.

    Args:
        images: Source of the human maps.
        rows: (n,) manifest rows with human maps; at most 500, evenly spread, are looked at.
        grid: Rows and columns of the grid over the whole image.
    """
    if not len(rows):
        return 0, 0
    step = max(1, len(rows) // _SAMPLE)
    maps = images.human_maps(rows[::step])
    peaks = maps.max((1, 2))
    areas = (maps >= np.maximum(peaks, 1)[:, None, None] / 2).mean((1, 2))
    seen = peaks > 0
    return int((areas[seen] * grid[0] * grid[1] < 0.5).sum()), int(seen.sum())
