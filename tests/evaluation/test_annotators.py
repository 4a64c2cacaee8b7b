from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from preceptor.evaluation.annotators import Agreement, AgreementCounter, pearson
from preceptor.evaluation.shift import cross_correlation, peak


def blob(rng: np.random.Generator, size: int = 80) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    at = rng.integers(25, size - 25, 2)
    return ((x - at[0]) / 9) ** 2 + ((y - at[1]) / 7) ** 2 < 1


def wobble(mask: np.ndarray, rng: np.random.Generator, pixels: float = 1.0) -> np.ndarray:
    """Mask with an irregular border."""
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 3)
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    return depth + pixels * noise / noise.std() > 0


def counted(images: int = 12, **hands: tuple[int, int]) -> Agreement:
    """Agreement of annotators with a displacement (dx, dy) of each."""
    rng = np.random.default_rng(0)
    counter = AgreementCounter()
    for number in range(images):
        truth = blob(rng)
        maps = {}
        for name, (dx, dy) in hands.items():
            moved = np.roll(wobble(truth, rng), (dy, dx), axis=(0, 1))
            maps[name] = moved.astype(np.uint8) * 255
        counter.add(str(number), maps)
    return counter.result()


def test_dice_iou_and_correlation_are_those_of_loops_over_pixels() -> None:
    rng = np.random.default_rng(3)
    counter = AgreementCounter()
    a, b = rng.integers(0, 256, (2, 6, 7)).astype(np.uint8)
    counter.add("one", {"a": a, "b": b})
    pair = counter.result().pairs[0]
    inside = [(int(x >= 128), int(y >= 128)) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    both, either = sum(x * y for x, y in inside), sum(max(x, y) for x, y in inside)
    assert pair.dice == pytest.approx(2 * both / sum(x + y for x, y in inside))
    assert pair.iou == pytest.approx(both / either)
    assert pair.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_images_without_marks_are_counted_apart() -> None:
    counter = AgreementCounter()
    mark, empty = np.zeros((2, 5, 5), np.uint8)
    mark[1:3] = 255
    counter.add("marked", {"a": mark, "b": mark})
    counter.add("empty", {"a": empty, "b": empty})
    counter.add("half", {"a": mark, "b": empty})
    counter.add("alone", {"a": mark})
    found = counter.result()
    assert (found.pairs[0].images, found.pairs[0].empty, found.single) == (3, 1, 1)
    assert found.pairs[0].dice == pytest.approx(0.5)
    assert [one.name for one in found.images] == ["half", "marked", "empty"]
    assert math.isnan(found.images[-1].dice)
    assert found.images[-1].empty


def test_cross_correlation_is_pearson_without_displacement_and_finds_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 30, 41))
    surface = cross_correlation(a, b, 4)
    assert surface is not None
    assert surface[4, 4] == pytest.approx(pearson(a, b))
    for dy, dx in ((2, -3), (-4, 1)):
        x, y = a - a.mean(), b - b.mean()
        total = sum(
            x[r + dy, c + dx] * y[r, c]
            for r in range(30)
            for c in range(41)
            if 0 <= r + dy < 30 and 0 <= c + dx < 41
        )
        norm = math.sqrt((x * x).sum() * (y * y).sum())
        assert surface[4 + dy, 4 + dx] == pytest.approx(total / norm)
    assert cross_correlation(np.ones((5, 5)), a[:5, :5], 2) is None


def test_peak_is_between_cells() -> None:
    y, x = np.mgrid[:64, :64]

    def bump(at: float) -> np.ndarray:
        return np.exp(-((x - at) ** 2 + (y - 30) ** 2) / 60)

    surface = cross_correlation(bump(33.4), bump(30), 8)
    assert surface is not None
    dx, dy, _ = peak(surface)
    assert (dx, dy) == (pytest.approx(3.4, abs=0.1), pytest.approx(0, abs=0.05))


def test_a_shifted_hand_is_found_with_its_displacement() -> None:
    found = counted(ann=(0, 0), bo=(9, -6), cy=(0, 0))
    bo = found.people[1]
    assert [one.is_shifted for one in found.people] == [False, True, False]
    assert [one.disagrees for one in found.people] == [False, True, False]
    assert bo.dx == pytest.approx(9, abs=0.5)
    assert bo.dy == pytest.approx(-6, abs=0.5)
    assert bo.gain > 0.3
    assert bo.dice < found.people[0].dice < bo.others


def test_steady_hands_and_a_rough_one_are_not_displaced() -> None:
    rng = np.random.default_rng(1)
    counter = AgreementCounter()
    for number in range(12):
        truth = blob(rng)
        maps = {"ann": wobble(truth, rng), "bo": wobble(truth, rng, 5), "cy": wobble(truth, rng)}
        counter.add(str(number), {name: one.astype(np.uint8) * 255 for name, one in maps.items()})
    found = counter.result()
    assert not any(one.is_shifted for one in found.people)
    assert [one.disagrees for one in found.people] == [False, True, False]
    steady = counted(ann=(0, 0), bo=(0, 0), cy=(0, 0))
    assert not any(one.disagrees or one.is_shifted for one in steady.people)


def test_two_annotators_are_not_told_apart() -> None:
    found = counted(ann=(0, 0), bo=(7, 0))
    assert found.pairs[0].dx == pytest.approx(-7, abs=0.5)
    assert not any(one.is_shifted or one.disagrees for one in found.people)


def test_too_few_images_decide_nothing() -> None:
    assert not any(one.disagrees for one in counted(4, a=(0, 0), b=(9, 0), c=(0, 0)).people)


def test_marked_area_is_compared_with_the_others() -> None:
    counter = AgreementCounter()
    small, large = np.zeros((2, 10, 10), np.uint8)
    small[:2, :5], large[:4, :5] = 255, 255
    counter.add("one", {"a": small, "b": small, "c": large})
    assert [one.area for one in counter.result().people] == pytest.approx([2 / 3, 2 / 3, 2])


def test_equal_annotators_are_seldom_taken_for_one_who_disagrees() -> None:
    """Small, rough marks, where the Dice of a pair varies by 0.1 from image to image."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        counter = AgreementCounter()
        for number in range(6):
            truth = np.zeros((12, 12), bool)
            truth[3:9, 4:8] = True
            maps = {
                name: np.where(rng.random(truth.shape) < 0.15, ~truth, truth) * np.uint8(255)
                for name in "abc"
            }
            counter.add(str(number), maps)
        alarms += any(one.disagrees for one in counter.result().people)
    assert alarms <= 8
