"""Statistics of maps: center, area and entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preceptor.predictor.map_values import normalised

MAP_STATISTICS = ("map_x", "map_y", "map_area", "map_entropy")
"""Names of the statistics of a map."""


def map_statistics(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Statistics of maps on the grid of a model.

    Args:
        maps: (n, h, w) maps; they are normalized.

    Returns:
        (n, 4): horizontal and vertical center of mass in [0, 1] from the upper left, area (mean of
        the map), and entropy of the map as a distribution over cells, divided by that of a uniform
        one. NaN for constant maps.

    Example:
        >>> map_statistics(np.array([[[0.0, 2.0], [0.0, 0.0]]], np.float32)).tolist()
        [[0.75, 0.25, 0.25, 0.0]]
    """
    height, width = maps.shape[1:]
    values = normalised(maps).astype(np.float64)
    total = values.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = values / total[:, None, None]
        x = shares.sum(1) @ ((np.arange(width) + 0.5) / width)
        y = shares.sum(2) @ ((np.arange(height) + 0.5) / height)
        logarithms = np.where(shares > 0, np.log(shares), 0)
        entropy = np.abs((shares * logarithms).sum((1, 2))) / max(np.log(height * width), 1e-12)
    found = np.stack([x, y, total / (height * width), entropy], 1)
    found[total == 0] = np.nan
    return np.asarray(found, np.float32)
