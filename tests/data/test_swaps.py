"""Swapped images: balance, independence, pixels, and the check of the editing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.data.swaps import (
    MarkedImages,
    check_marks,
    editing_check,
    inside_only,
    outside_only,
    replicates,
    swap,
)
from preceptor.errors import ProblemsError


def drawn(
    count: int = 40, side: int = 32, classes: int = 2, *, marked_from: int = 1, seed: int = 0
) -> MarkedImages:
    """Noise; images of the classes from `marked_from` on have a marked square at a random place."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    labels, masks = np.arange(count) % classes, np.zeros((count, side, side), np.float32)
    for at in np.flatnonzero(labels >= marked_from):
        top, left = rng.integers(2, side - 8, 2)
        masks[at, top : top + 5, left : left + 5] = 1
    return MarkedImages(pixels, masks, labels)


@settings(max_examples=15)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 99), st.integers(0, 1))
def test_every_class_of_the_outside_is_equally_often_with_every_inside(
    classes: int, times: int, seed: int, marked_from: int
) -> None:
    images = drawn(24, 16, classes, marked_from=marked_from, seed=seed)
    made = swap(images, classes=classes, per_image=classes * times, seed=seed)
    table = np.zeros((len(images), classes))
    np.add.at(table, (made.inside, made.outside_labels), 1)
    assert (table == times).all()
    assert (made.inside != made.outside).all()
    assert (made.labels == images.labels[made.inside]).all()
    assert (made.outside_labels == images.labels[made.outside]).all()


def test_fewer_outsides_than_classes_are_balanced_over_the_images_of_a_class() -> None:
    images = drawn(40, 16, 4)
    made = swap(images, classes=4, per_image=2, seed=0)
    table = np.zeros((4, 4))
    np.add.at(table, (made.labels, made.outside_labels), 1)
    assert (table == 5).all()


def test_swaps_are_the_same_for_a_seed_and_others_for_another() -> None:
    images = drawn()
    first, again, other = (swap(images, classes=2, per_image=2, seed=one) for one in (3, 3, 4))
    assert (first.pixels == again.pixels).all()
    assert (first.outside == again.outside).all()
    assert (first.outside != other.outside).any()


def test_the_inside_is_of_one_image_and_the_outside_of_the_other() -> None:
    images = drawn(marked_from=0)
    made = swap(images, classes=2, per_image=2, seed=0)
    marks = images.masks > 0
    for pixels, i, j in zip(made.pixels, made.inside, made.outside, strict=True):
        assert (pixels[marks[i]] == images.pixels[i][marks[i]]).all()
        wide = [np.zeros((32, 32), bool) for _ in range(2)]
        for of, place in zip((i, j), wide, strict=True):
            rows, columns = np.nonzero(marks[of])
            place[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3] = True
        around = ~(wide[0] | wide[1])
        assert (pixels[around] == images.pixels[j][around]).all()
        # The evidence of the outside is filled.
        filled = marks[j] & ~wide[0]
        assert filled.sum() == 0 or (pixels[filled] != images.pixels[j][filled]).any()


def test_only_the_inside_or_the_outside_is_left() -> None:
    images = drawn(marked_from=0)
    marks = images.masks > 0
    outside, inside = outside_only(images, seed=0), inside_only(images, seed=0)
    assert (inside[marks] == images.pixels[marks]).all()
    assert (outside[marks] != images.pixels[marks]).mean() > 0.9
    far = ~marks & (outside == images.pixels).all(3)
    assert far.mean() > 0.8


def test_marks_at_one_place_are_filled_from_around() -> None:
    images = drawn(marked_from=0)
    images.masks[:] = 0
    images.masks[:, 10:20, 10:20] = 1
    pixels = np.full_like(images.pixels, 100)
    pixels[:, 10:20, 10:20] = 250
    made = outside_only(MarkedImages(pixels, images.masks, images.labels), seed=0)
    assert np.abs(made.astype(int) - 100)[:, 12:18, 12:18].max() <= 1


@pytest.mark.parametrize("marked_from", [0, 1])
def test_the_editing_tells_nothing(marked_from: int) -> None:
    found = [
        editing_check(drawn(60, marked_from=marked_from, seed=s), classes=2, seed=s)
        for s in range(8)
    ]
    assert sum(one.low > 0.5 for one in found) <= 1
    assert abs(np.mean([one.value for one in found]) - 0.5) < 0.08


def test_an_editing_that_tells_the_class_is_found() -> None:
    """Marks of one class are twice as wide: the outline of a fill tells the class."""
    images = drawn(60, marked_from=0)
    for at in np.flatnonzero(images.labels):
        rows, columns = np.nonzero(images.masks[at])
        images.masks[at, rows.min() : rows.min() + 12, columns.min() : columns.min() + 12] = 1
    assert editing_check(images, classes=2, seed=0).low > 0.6


def test_intervals_cover_an_outside_whose_class_changes_nothing() -> None:
    """The outside has an effect of its own on the score, which has nothing to do with its class."""
    images, covered = drawn(60, 16), 0
    for seed in range(40):
        made = swap(images, classes=2, per_image=2, seed=seed)
        effects = np.random.default_rng(seed).normal(size=(2, 60))
        score = effects[0][made.inside] + effects[1][made.outside]
        scores, labels = np.stack([-score, score], 1), made.outside_labels
        drawn_again = replicates(labels, scores, made.inside, made.outside, seed=0)
        low, high = np.quantile(drawn_again, [0.025, 0.975])
        covered += int(low <= 0.5 <= high)
    assert covered >= 36


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: drawn(12), "mark 8 more"),
        (lambda one: MarkedImages(one.pixels, one.masks, one.labels * 0), "two classes"),
        (lambda one: MarkedImages(one.pixels, one.masks * 0, one.labels), "no image has a mark"),
        (lambda one: MarkedImages(one.pixels, one.masks * 0 + 1, one.labels), "100%"),
    ],
)
def test_nothing_to_swap_is_refused(change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(ProblemsError, match=said):
        check_marks(change(drawn()), "a.csv")
    check_marks(drawn(), "a.csv")
