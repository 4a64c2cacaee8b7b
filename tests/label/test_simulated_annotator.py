"""The simulated annotator: exact marks, stated costs, corrections where they are cheaper."""

from __future__ import annotations

import numpy as np
import pytest

from preceptor.label.annotator_config import Costs, Error
from preceptor.label.simulated_annotator import Marking, Mask, intended_mark, mark


def disk(shape: tuple[int, int], y: float, x: float, radius: float) -> Mask:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def result(start: Mask, marking: Marking) -> Mask:
    mask = start.copy() if marking.adopted else np.zeros_like(start)
    for stroke in marking.strokes:
        mask = mask & ~stroke.pixels if stroke.erase else mask | stroke.pixels
    return mask


NONE = np.zeros((200, 300), bool)
TWO = disk((200, 300), 60, 60, 20) | disk((200, 300), 120, 220, 35)


def test_from_nothing_one_stroke_for_each_region() -> None:
    found = mark(TWO, None, Costs(open=3, answer=1, stroke=2, steer=0.2), Error(tolerance=0.02))
    assert np.array_equal(result(NONE, found), TWO)
    assert [stroke.erase for stroke in found.strokes] == [False, False]
    # The border of a disk of radius r has about 8 r / √2 pixels; its interior is one dab.
    difficulty = sum(8 * r / np.sqrt(2) / (2 * 0.02 * 300) + np.pi / 4 for r in (20, 35))
    assert found.seconds == pytest.approx(3 + 1 + 2 * 2 + 0.2 * difficulty, rel=0.05)


def test_a_good_proposal_is_adopted_and_a_bad_one_is_not() -> None:
    one = disk((200, 300), 120, 220, 35)
    near = mark(TWO, one)
    assert near.adopted
    assert np.array_equal(result(one, near), TWO)
    many = sum((disk((200, 300), y, 20, 9) for y in range(15, 200, 25)), start=NONE)
    far = mark(TWO, many)
    assert not far.adopted
    assert np.array_equal(result(many, far), TWO)
    assert mark(TWO, TWO).seconds < mark(TWO, None).seconds


def test_thin_deviations_of_a_proposal_are_left() -> None:
    proposal = disk((200, 300), 60, 61, 20) | disk((200, 300), 120, 220, 35)
    assert mark(TWO, proposal, error=Error(tolerance=0.01)).strokes == []
    exact = mark(TWO, proposal, error=Error(tolerance=0.001))
    assert np.array_equal(result(proposal, exact), TWO)


@pytest.mark.parametrize("sd", [0.0, 0.05, 0.2])
def test_error_of_intended_marks(sd: float) -> None:
    rng = np.random.default_rng(0)
    truth = disk((200, 300), 100, 150, 40)
    found = [intended_mark(truth, Error(shift=sd, scale=0.0), rng) for _ in range(200)]
    centers = np.array([np.argwhere(one).mean(0) for one in found]) - (100, 150)
    side = np.sqrt(truth.sum())
    assert centers.std() == pytest.approx(sd * side, rel=0.12, abs=0.01)
    grown = [intended_mark(truth, Error(shift=0.0, scale=sd), rng).sum() for _ in range(200)]
    radii = np.sqrt(np.array(grown) / np.pi)
    assert radii.std() == pytest.approx(sd * side, rel=0.12, abs=0.01)


def test_marks_at_the_border_stay_inside_the_image() -> None:
    rng = np.random.default_rng(1)
    corner = disk((50, 60), 0, 59, 12)
    for _ in range(50):
        found = intended_mark(corner, Error(shift=0.3, scale=0.3), rng)
        assert found.shape == (50, 60)
    assert intended_mark(NONE, Error(), rng).sum() == 0
