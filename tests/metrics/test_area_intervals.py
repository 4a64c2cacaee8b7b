"""Intervals of one AUC against their formulas written out, and where nothing can be said."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from preceptor.metrics.delong import class_units, logit_interval, t_quantile

areas = st.floats(0.001, 0.999)
halves = st.floats(1e-6, 0.5)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@given(areas, halves)
def test_the_interval_is_symmetric_on_the_logit_scale_and_stays_in_range(
    area: float, half: float
) -> None:
    low, high = logit_interval(area, half)
    assert 0 <= low < area < high <= 1
    if low > 1e-9 and high < 1 - 1e-9:
        assert logit(area) - logit(low) == pytest.approx(half / (area * (1 - area)), rel=1e-4)
        assert logit(high) - logit(area) == pytest.approx(half / (area * (1 - area)), rel=1e-4)
    mirrored = logit_interval(1 - area, half)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_a_small_half_width_is_kept_in_units_of_the_auc() -> None:
    for area in (0.3, 0.5, 0.9):
        found = logit_interval(area, 1e-4)
        np.testing.assert_allclose(found, [area - 1e-4, area + 1e-4], atol=1e-7)


@pytest.mark.parametrize(
    ("area", "half"), [(0.0, 0.1), (1.0, 0.1), (0.5, 0.0), (0.5, math.nan), (math.nan, 0.1)]
)
def test_without_a_spread_or_at_the_ends_there_is_no_interval(area: float, half: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(logit_interval(area, half)).all()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=1, max_size=40))
def test_degrees_of_freedom_are_welchs_of_classes_with_equal_spread(
    images: list[tuple[int, int]],
) -> None:
    classes, units = (np.array(column) for column in zip(*images, strict=True))
    held = [len({u for c, u in images if c == one}) for one in sorted({c for c, _ in images})]
    found = class_units(classes, units)
    if len(held) < 2 or min(held) < 2:
        assert np.isnan(found).all()
        return
    below = sum((1 / k) ** 2 / (k - 1) for k in held)
    welch = sum(1 / k for k in held) ** 2 / below
    assert found.degrees == pytest.approx(min(welch, len({u for _, u in images}) - 1))
    assert found.factor == pytest.approx(sum(1 / (k - 1) for k in held) / sum(1 / k for k in held))


def test_degrees_of_freedom_agree_with_scipys_welch_test() -> None:
    rng = np.random.default_rng(0)
    few, many = (stats.zscore(rng.normal(size=n), ddof=1) for n in (7, 30))  # equal spread
    expected = stats.ttest_ind(few, many, equal_var=False).df
    found = class_units(np.repeat([1, 0], [7, 30]), np.arange(37))
    assert found.degrees == pytest.approx(expected)


def test_no_classes_and_one_class_leave_no_degrees_of_freedom() -> None:
    for n in (0, 5):
        found = class_units(np.zeros(n, dtype=bool), np.arange(n))
        assert np.isnan(found).all()
        assert math.isnan(t_quantile(found.degrees))


def test_the_t_quantile_is_that_of_a_95_percent_interval() -> None:
    assert t_quantile(9) == pytest.approx(2.2622, abs=1e-4)
    assert t_quantile(1e9) == pytest.approx(1.95996, abs=1e-5)
