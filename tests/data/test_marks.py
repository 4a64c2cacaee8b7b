"""Sizes and places of human marks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.notes import small_marks


class Maps:
    """Human maps in memory: squares of the given sides on 128 × 128."""

    def __init__(self, sides: list[int]) -> None:
        self.sides = sides

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = np.zeros((len(rows), 128, 128), np.uint8)
        for place, row in enumerate(rows):
            side = self.sides[row]
            found[place, :side, :side] = 255
            found[place, 64:, 64:] = 100 if side else 0  # below half of the maximum
        return found


def test_marks_are_compared_with_half_a_cell() -> None:
    source: Any = Maps([0, 5, 11, 12, 64])  # half a cell of 16 pixels has the area of 11.3²
    assert small_marks(source, np.arange(5), (8, 8)) == (2, 4)
    assert small_marks(source, np.arange(5), (32, 32)) == (0, 4)
    assert small_marks(source, np.arange(5), (2, 2)) == (3, 4)
    assert small_marks(source, np.arange(0), (8, 8)) == (0, 0)


def test_large_sets_are_sampled() -> None:
    source: Any = Maps([5] * 5000)
    small, seen = small_marks(source, np.arange(5000), (8, 8))
    assert small == seen == 500
