"""Sizes and places of human marks."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.data.notes import MarkPlaces, mark_places, small_marks


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


def squares(corners: list[tuple[int, int]], side: int = 16) -> NDArray[np.uint8]:
    maps = np.zeros((len(corners), 128, 128), np.uint8)
    for one, (top, left) in zip(maps, corners, strict=True):
        one[top : top + side, left : left + side] = 200
    return maps


def test_marks_at_one_place_overlap_wholly() -> None:
    assert mark_places(squares([(8, 8)] * 4)) == MarkPlaces((16 / 128) ** 2, 1.0, 4)


def test_overlap_is_the_mean_over_the_other_images() -> None:
    # The first two share half a square; the third is elsewhere.
    found = mark_places(squares([(0, 0), (0, 8), (64, 64)]))
    assert found is not None
    assert found.overlap == pytest.approx((0.5 / 2 + 0.5 / 2 + 0) / 3)


def test_marks_anywhere_overlap_by_their_area() -> None:
    places = np.random.default_rng(0).integers(0, 128, (400, 2)).tolist()
    found = mark_places(np.stack([np.roll(squares([(0, 0)])[0], one, (0, 1)) for one in places]))
    assert found is not None
    assert found.overlap == pytest.approx(found.area, rel=0.1)


def test_maps_without_a_mark_are_left_out() -> None:
    maps = squares([(0, 0), (0, 0), (0, 0)])
    maps[2] = 0
    assert mark_places(maps) == MarkPlaces((16 / 128) ** 2, 1.0, 2)
    assert mark_places(maps[1:]) is None
    assert mark_places(maps[:0]) is None


def test_marks_are_looked_at_without_a_number_for_each_position_of_each() -> None:
    maps = np.repeat(squares([(8, 8), (0, 16), (64, 0)]), 100, axis=0)
    tracemalloc.start()
    assert mark_places(maps) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * maps.nbytes
