"""Human marks: their areas, and how much those of different images overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preceptor.data.cache import ImageSource

# Maps that are looked at; more would change the share by less than two percentage points.
_SAMPLE = 500


@dataclass(frozen=True)
class MarkPlaces:
    """Size and places of the marks of a data set.

    Args:
        area: Median share of an image that its mark covers.
        overlap: Mean share of a mark that the mark of another image covers. Marks that may lie
            anywhere have an overlap of about their mean area, marks at one place of up to 1.
        count: Number of marks looked at.
    """

    area: float
    overlap: float
    count: int = 0


def mark_places(maps: NDArray[np.uint8]) -> MarkPlaces | None:
    """Size and places of human marks.

    The mark of a map is where it has at least half of its maximum.

    Args:
        maps: (n, H, W) human maps; those without a mark are left out.

    Returns:
        Size and places, or None for fewer than two marks.
    """
    marks = _marked(maps).reshape(len(maps), maps.shape[1] * maps.shape[2])
    marks = marks[marks.any(1)]
    count = len(marks)
    if count < 2:
        return None
    areas = marks.sum(1)
    at_each = marks.sum(0)
    # By mark, since a number for each position of all marks would take eight times their memory.
    shared = np.array([at_each[one].sum() for one in marks]) - areas
    overlaps = shared / (count - 1) / areas
    return MarkPlaces(float(np.median(areas)) / marks.shape[1], float(overlaps.mean()), count)


def small_marks(
    images: ImageSource, rows: NDArray[np.int64], grid: tuple[int, int]
) -> tuple[int, int]:
    """Number of human maps that mark less than half a cell of a grid, and number looked at.

    Args:
        images: Source of the human maps.
        rows: (n,) manifest rows with human maps, see `sampled`.
        grid: Rows and columns of the grid over the whole image.
    """
    if not len(rows):
        return 0, 0
    areas = _marked(images.human_maps(sampled(rows))).mean((1, 2))
    areas = areas[areas > 0]
    return int((areas * grid[0] * grid[1] < 0.5).sum()), len(areas)


def sampled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows whose maps are looked at: all, or at most 999, evenly spread."""
    return rows[:: max(1, len(rows) // _SAMPLE)]


def _marked(maps: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Positions of each map with at least half of its maximum."""
    peaks = maps.max((1, 2), initial=0)
    return np.asarray(maps >= np.maximum(peaks, 1)[:, None, None] / 2)
