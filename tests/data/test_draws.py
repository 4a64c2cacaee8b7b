"""Random numbers of images, and the changes that they decide."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from preceptor.config.training import Augmentation
from preceptor.data import augment

ALL = Augmentation(
    flip=True, quarter_turns=True, crop_area=0.3, color=0.5, blur=0.5, jpeg=0.5, outside="mean"
)
seeds = st.integers(0, 2**31)


def draw(count: int, seed: int = 0) -> NDArray[np.float64]:
    return augment.draw(seed, 0, np.arange(count))


def test_draws_are_of_seed_epoch_and_position_alone() -> None:
    drawn = draw(100, 3)
    assert drawn.shape == (100, 14)
    assert ((drawn >= 0) & (drawn < 1)).all()
    some = np.array([70, 3, 3, 99])
    np.testing.assert_array_equal(augment.draw(3, 0, some), drawn[some])
    assert not np.isin(drawn, augment.draw(3, 1, np.arange(100))).any()
    assert not np.isin(drawn, draw(100, 4)).any()
    assert len(np.unique(drawn)) == drawn.size


def test_the_generator_is_split_mix() -> None:
    # The first outputs of the published C code for the seed 1234567.
    found = augment.split_mix(np.uint64(1234567), np.arange(3, dtype=np.uint64))
    assert found.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_are_uniform_and_independent() -> None:
    drawn = draw(20_000)
    assert np.abs(drawn.mean(0) - 0.5).max() < 4 * (1 / 12 / 20_000) ** 0.5
    correlations = np.corrcoef(np.hstack([drawn[:-1], drawn[1:]]).T) - np.eye(28)
    assert np.abs(correlations).max() < 5 / 20_000**0.5


@given(seed=seeds, side=st.integers(1, 300), area=st.floats(0.01, 1))
def test_crops_lie_on_the_canvas(seed: int, side: int, area: float) -> None:
    crops = augment.changes_of(Augmentation(crop_area=area), draw(20, seed), side).crops
    assert (crops[:, :2] >= 0).all()
    assert (crops[:, :2] + crops[:, 2:] <= side).all()
    assert (crops[:, 2] >= max(1, side * area**0.5 - 0.5)).all()


def test_the_extremes_of_the_draw_stay_on_the_canvas() -> None:
    for value in (0.0, np.nextafter(1, 0)):
        changes = augment.changes_of(ALL, np.full((1, 14), value), 50)
        assert changes.crops.min() >= 0
        assert (changes.crops[:, :2] + changes.crops[:, 2:]).max() <= 50
        assert changes.quarters.max() <= 3
        assert changes.qualities.max() <= 95


def test_flips_turns_areas_and_chances_have_their_frequencies() -> None:
    changes = augment.changes_of(ALL, draw(4000), 200)
    quarters = np.bincount(changes.quarters, minlength=4) / 4000
    areas = (changes.crops[:, 2] / 200) ** 2
    chances = changes.flips, changes.sigmas > 0, changes.qualities > 0, changes.outside
    for chosen in chances:
        assert abs(chosen.mean() - 0.5) < 0.032  # four standard errors
    assert np.abs(quarters - 0.25).max() < 0.03
    assert abs(areas.mean() - 0.65) < 0.015
    assert areas.min() >= 0.29
    sigmas = changes.sigmas[changes.sigmas > 0]
    assert 0.1 <= sigmas.min() <= sigmas.max() <= 2
    qualities = changes.qualities[changes.qualities > 0]
    assert (qualities.min(), qualities.max()) == (30, 95)
    assert changes.factors is not None
    assert 0.5 <= changes.factors.min() <= changes.factors.max() <= 1.5


def test_the_outside_has_numbers_of_its_own() -> None:
    """Whether it is changed changes nothing else; its keys are those of SplitMix64's range."""
    plain = ALL.model_copy(update={"outside": "none"})
    one, other = (augment.changes_of(options, draw(500), 50) for options in (ALL, plain))
    for name in ("crops", "flips", "quarters", "factors", "sigmas", "qualities"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not other.outside.any()
    assert len(np.unique(one.keys)) == 500
    assert one.keys.max() < 2**53
    for rate in (0.0, 1.0):
        changes = ALL.model_copy(update={"outside_rate": rate})
        assert (augment.changes_of(changes, draw(500), 50).outside == (rate == 1)).all()
