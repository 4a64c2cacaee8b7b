"""An interval excludes relevant differences, and rarely wrong ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.paired_tests import Excluded, excluded


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (-0.005, 0.005, Excluded.BOTH),
        (0.001, 0.009, Excluded.BOTH),  # above 0, but by less than is relevant
        (-0.01, 0.005, Excluded.GAIN),  # the margin itself is relevant
        (-0.2, -0.1, Excluded.GAIN),
        (-0.005, 0.01, Excluded.LOSS),
        (0.1, 0.2, Excluded.LOSS),
        (-0.01, 0.01, Excluded.NEITHER),
        (-0.2, 0.2, Excluded.NEITHER),
        (math.nan, math.nan, Excluded.NEITHER),
        (-math.inf, math.inf, Excluded.NEITHER),
    ],
)
def test_what_an_interval_excludes(low: float, high: float, found: Excluded) -> None:
    assert excluded(low, high, 0.01) is found


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 1))
def test_both_sides_are_treated_alike(low: float, width: float, margin: float) -> None:
    """The difference b − a has the interval (−high, −low)."""
    other = {Excluded.GAIN: Excluded.LOSS, Excluded.LOSS: Excluded.GAIN}
    found = excluded(low, low + width, margin)
    assert excluded(-(low + width), -low, margin) is other.get(found, found)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_relevant_difference_is_called_equivalent_in_a_fortieth_of_all_studies(
    seeds: int,
) -> None:
    """The true difference is the margin: each of the two one-sided tests has the level 2.5 %."""
    margin, studies = 0.01, 8_000
    drawn = np.random.default_rng(0).normal(margin, 0.002, (studies, seeds))
    half = stats.t.ppf(0.975, seeds - 1) * drawn.std(1, ddof=1) / math.sqrt(seeds)
    wrong = sum(
        excluded(low, high, margin) in (Excluded.BOTH, Excluded.GAIN)
        for low, high in zip(drawn.mean(1) - half, drawn.mean(1) + half, strict=True)
    )
    assert 0.018 < wrong / studies < 0.032


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_a_margin_is_above_0(margin: float) -> None:
    with pytest.raises(InputError, match="must be above 0"):
        excluded(-0.1, 0.1, margin)


def test_an_interval_has_its_ends_in_order() -> None:
    with pytest.raises(InputError, match="is above the upper end"):
        excluded(0.1, -0.1, 0.01)


def test_an_interval_over_images_has_to_exclude_the_same() -> None:
    assert excluded(-0.004, 0.006, 0.01, (-0.009, 0.009)) is Excluded.BOTH
    assert excluded(-0.004, 0.006, 0.01, (-0.02, 0.009)) is Excluded.GAIN
    assert excluded(-0.004, 0.006, 0.01, (-0.02, 0.02)) is Excluded.NEITHER
    assert excluded(-0.02, 0.02, 0.01, (-0.004, 0.006)) is Excluded.NEITHER
    assert excluded(math.nan, math.nan, 0.01, (-0.004, 0.006)) is Excluded.NEITHER


def test_an_interval_without_width_excludes_nothing() -> None:
    assert excluded(0.0, 0.0, 0.01) is Excluded.NEITHER
    assert excluded(0.0, 0.0, 0.01, (0.0, 0.0)) is Excluded.NEITHER
    assert excluded(0.0, 0.0, 0.01, (-0.002, 0.002)) is Excluded.BOTH
