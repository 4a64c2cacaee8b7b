"""Gray levels of the masks of a folder: strengths of a map, or numbers of classes or regions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.importers.shapes import Log

# A mask with more levels is a map. Cityscapes numbers 34 classes, VOC 21 and the border 255.
_MOST_LEVELS = 40
_LARGEST_CLASS = 63
_VOID = 255
# Numbers of more classes (ADE20K has 150, COCO-Stuff 182), if two of them are so small: of
# strengths in 40 equal steps up to 255, one is below 12.
_LARGEST_OF_MANY, _SMALL_CLASS = 200, 11
# Share of the pixels of a level that are filled; smoothing and compression leave thin lines.
_FILLED = 0.1
# Numbers of regions: share of the numbers that occur (small regions get lost), of the levels that
# are filled, and of the borders that are large steps.
_CONSECUTIVE, _REGIONS, _LARGE_STEPS = 0.9, 0.5, 0.2


class GrayLevels:
    """Levels that occur in the gray masks of a folder, as stored.

    Numbers of classes (0, 1, 2, or 0, 1 and 255 for pixels that belong to no class) cannot be
    told from strengths by one file, as a file need not have all classes.
    """

    def __init__(self) -> None:
        self._first: dict[float, str] = {}
        self._small: set[float] = set()
        self._has_map = False
        self._regions: list[tuple[str, int]] = []

    def add(self, pixels: NDArray[Any], levels: NDArray[Any], of: str) -> None:
        """Add the levels of a mask.

        Args:
            pixels: (H, W) mask.
            levels: (n,) its different levels, in increasing order.
            of: File of the mask.
        """
        if len(levels) > _MOST_LEVELS:
            self._has_map = True
            if are_region_numbers(pixels, levels):
                self._regions.append((of, int(levels[-1])))
        elif not self._has_map:
            for level in levels.tolist():
                self._first.setdefault(level, of)
            small = {one for one in levels.tolist() if 0 < one <= _SMALL_CLASS} - self._small
            if small:
                shares = filled_shares(pixels)
                self._small |= {one for one in small if shares.get(one, 0.0) >= _FILLED}

    @property
    def are_classes(self) -> bool:
        """Whether the levels are numbers of several classes.

        They are if there are three or more in all masks together, all whole and, except 255, at
        most 63, or at most 200 with two filled ones from 1 to 11; and no mask has more than 40.
        """
        if self._has_map or len(self._first) < 3:
            return False
        largest = _LARGEST_OF_MANY if len(self._small) > 1 else _LARGEST_CLASS
        return all(
            level == _VOID or (level == int(level) and 0 <= level <= largest)
            for level in self._first
        )

    def check(self, log: Log, fix: str) -> None:
        """Note a problem if the levels are numbers of classes or of regions.

        Args:
            log: Collects the problem.
            fix: What to do if they are numbers of classes.
        """
        if self._regions:
            of, last = self._regions[0]
            more = f" and {len(self._regions) - 1:,} more" if len(self._regions) > 1 else ""
            what = (
                f"the levels up to {last} ({of}){more} are taken for numbers of regions, not for "
                "strengths of a map"
            )
            log.problem("the gray masks", what, "save masks of 0 and 255")
        if not self.are_classes:
            return
        levels = sorted(self._first)
        shown = [f"{level:g} ({self._first[level]})" for level in levels[:4]]
        more = f" and {len(levels) - 4} more" if len(levels) > 4 else ""
        what = (
            f"the levels {', '.join(shown)}{more} are taken for numbers of classes, not for "
            "strengths of a map"
        )
        log.problem("the gray masks", what, fix)


def are_region_numbers(pixels: NDArray[Any], levels: NDArray[Any]) -> bool:
    """Whether the levels of a mask are numbers of regions, such as cells.

    They are if nearly all numbers up to the largest occur, most of them fill a region, and many
    borders are those of regions with far numbers: they differ by more than half the square root of
    the largest, the number of regions in half a row. In a smooth map of so few levels that they
    fill regions, also after compression, the levels on both sides of a border are close.

    Args:
        pixels: (H, W) mask.
        levels: (n,) its different levels, in increasing order.
    """
    numbers = levels[levels > 0]
    if levels[0] < 0 or not (levels == np.floor(levels)).all():
        return False
    if len(numbers) < _CONSECUTIVE * float(numbers[-1]):
        return False
    shares = filled_shares(pixels)
    if sum(shares.get(one, 0.0) >= _FILLED for one in numbers.tolist()) < _REGIONS * len(numbers):
        return False
    values = pixels.astype(np.int64)
    steps = np.concatenate([np.abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)])
    large = math.sqrt(float(numbers[-1])) / 2
    return bool((steps[steps > 0] > large).mean() >= _LARGE_STEPS)


def filled_shares(pixels: NDArray[Any]) -> dict[float, float]:
    """Share of the pixels of a level whose four neighbors have the same level; levels without one
    are left out.

    Args:
        pixels: (H, W) mask.
    """
    inner = pixels[1:-1, 1:-1]
    same = (inner == pixels[:-2, 1:-1]) & (inner == pixels[2:, 1:-1])
    same &= (inner == pixels[1:-1, :-2]) & (inner == pixels[1:-1, 2:])
    every, totals = np.unique(pixels, return_counts=True)
    levels, counts = np.unique(inner[same], return_counts=True)
    shares = counts / totals[np.searchsorted(every, levels)]
    return dict(zip(levels.astype(float).tolist(), shares.tolist(), strict=True))
