"""Random changes: functions of a row of numbers, photometric ones without geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preceptor.config.run import Augmentation
from preceptor.data import augment
from preceptor.data.geometry import Box, Turn

ALL = Augmentation(flip=True, quarter_turns=True, crop_area=0.3, colour=0.5, blur=1, jpeg=1)
numbers = st.integers(0, 2**31).map(lambda seed: augment.draw(seed, 0, 1)[0])


def test_draws_are_of_seed_and_epoch_alone() -> None:
    drawn = augment.draw(3, 7, 100)
    np.testing.assert_array_equal(drawn, augment.draw(3, 7, 100))
    np.testing.assert_array_equal(drawn[:10], augment.draw(3, 7, 10))
    assert not np.array_equal(drawn, augment.draw(3, 8, 100))
    assert not np.array_equal(drawn, augment.draw(4, 7, 100))
    assert ((drawn >= 0) & (drawn < 1)).all()


@given(row=numbers, side=st.integers(1, 300))
def test_nothing_changes_with_everything_off(row: NDArray[np.float64], side: int) -> None:
    change = augment.geometric(Augmentation(), row, side)
    assert change.crop == (0, 0, side)
    assert change.turn == Turn()
    assert change.box(side) == Box(0, 0, 1, 1)
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    assert augment.photometric(Augmentation(), row, image) is image


@given(row=numbers, side=st.integers(1, 300), area=st.floats(0.01, 1))
def test_crops_lie_on_the_canvas(row: NDArray[np.float64], side: int, area: float) -> None:
    left, top, size = augment.geometric(Augmentation(crop_area=area), row, side).crop
    assert 0 <= left <= left + size <= side
    assert 0 <= top <= top + size <= side
    assert size >= max(1, side * area**0.5 - 0.5)


def test_the_extremes_of_the_draw_stay_on_the_canvas() -> None:
    for value in (0.0, np.nextafter(1, 0)):
        left, top, size = augment.geometric(ALL, np.full(12, value), 50).crop
        assert min(left, top) >= 0
        assert max(left, top) + size <= 50


def test_flips_turns_and_areas_have_their_frequencies() -> None:
    rows = augment.draw(0, 0, 4000)
    changes = [augment.geometric(ALL, row, 200) for row in rows]
    flips = np.mean([change.turn.flip for change in changes])
    quarters = np.bincount([change.turn.quarters for change in changes], minlength=4) / 4000
    areas = np.array([(change.crop[2] / 200) ** 2 for change in changes])
    assert abs(flips - 0.5) < 0.03  # four standard errors
    assert np.abs(quarters - 0.25).max() < 0.03
    assert abs(areas.mean() - 0.65) < 0.015
    assert areas.min() >= 0.29


@pytest.mark.parametrize("channels", [1, 3])
@settings(deadline=None, max_examples=25)
@given(row=numbers, x=st.integers(10, 21), y=st.integers(10, 21))
def test_photometric_changes_keep_the_geometry(
    channels: int, row: NDArray[np.float64], x: int, y: int
) -> None:
    image = torch.full((channels, 32, 32), 60, dtype=torch.uint8)
    image[:, y - 2 : y + 3, x - 2 : x + 3] = 200
    changed = augment.photometric(ALL, row, image.clone())
    assert changed.shape == image.shape
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, augment.photometric(ALL, row, image.clone()))
    above = changed.float().mean(0) - changed.float().mean(0).median()
    above = torch.where(above > 0.5 * above.max(), above, 0)
    place = torch.arange(32.0)
    assert float((above.sum(0) * place).sum() / above.sum()) == pytest.approx(x, abs=0.5)
    assert float((above.sum(1) * place).sum() / above.sum()) == pytest.approx(y, abs=0.5)


@pytest.mark.parametrize("name", ["colour", "blur", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_change_does_something(name: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (channels, 32, 32), dtype=torch.uint8, generator=generator)
    row = np.full(12, 0.7)
    row[[8, 10]] = 0.99
    always = Augmentation(**{name: 1.0})
    assert always.photometric
    assert not torch.equal(augment.photometric(always, row, image), image)
    if name != "colour":
        rarely = Augmentation(**{name: 0.9})
        assert torch.equal(augment.photometric(rarely, row, image), image)


def test_resize_keeps_a_constant_and_the_mean() -> None:
    flat = np.full((20, 20, 3), 77, np.uint8)
    assert (augment.resize(flat, 7) == 77).all()
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (32, 1, 1))
    small = augment.resize(ramp, 8)
    assert small.shape == (1, 8, 8)
    assert float(small.float().mean()) == pytest.approx(float(ramp.mean()), abs=1)
