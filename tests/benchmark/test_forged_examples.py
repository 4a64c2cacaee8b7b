"""Areas of the photographs, and the crops that are drawn from them."""

from __future__ import annotations

import numpy as np
import pytest

from preceptor.benchmark.forged import draw_areas, draw_example
from preceptor.benchmark.forgeries import KINDS, PRESETS, STAMP_MARGIN, STAMP_SHAPE, random_place


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_pixel_is_in_train_and_in_val(size: int, seed: int) -> None:
    areas = draw_areas(size, seed)
    for train, val in zip(areas["train"], areas["val"], strict=True):
        assert train.group.removesuffix("/a") == val.group.removesuffix("/b")
        assert not np.shares_memory(train.pixels, val.pixels)
        assert min(train.pixels.shape[:2]) >= size
        assert min(val.pixels.shape[:2]) >= size


def test_no_moving_stamp_touches_the_region_of_its_crop_or_of_the_forgery_it_could_have_had() -> (
    None
):
    settings = PRESETS["spots"]
    areas = draw_areas(settings.size, 100)["train"]
    for row in range(100):
        generator = np.random.default_rng([100, 0, row])
        example = draw_example(areas, settings.kinds[row % 3], settings, generator)
        top, left = random_place(example.region, generator)
        height, width = STAMP_SHAPE
        around = example.region[
            top - STAMP_MARGIN : top + height + STAMP_MARGIN,
            left - STAMP_MARGIN : left + width + STAMP_MARGIN,
        ]
        assert around.shape == (height + 2 * STAMP_MARGIN, width + 2 * STAMP_MARGIN)
        assert not around.any()


def test_crops_are_chosen_without_regard_to_their_label() -> None:
    areas = draw_areas(32, 0)["train"]
    for kind in KINDS:
        example = draw_example(areas, kind, PRESETS["tiny"], np.random.default_rng(0))
        outside = example.region == 0
        assert (example.forged == example.authentic)[outside].all()
        change = np.abs(example.forged.astype(int) - example.authentic)[example.region >= 128]
        assert change.mean() >= PRESETS["tiny"].least_change
