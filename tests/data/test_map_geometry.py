"""Resampling and turning of maps, against point-by-point twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.data.resampling import resample, turn_maps
from tests.data.map_twin import turned_array, twin

UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)

boxes = st.tuples(
    st.floats(-0.5, 0.8), st.floats(-0.5, 0.8), st.floats(0.2, 1.5), st.floats(0.2, 1.5)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    region=boxes,
    view=boxes,
    seed=st.integers(0, 999),
)
def test_resample_is_the_integral(shape, grid, region, view, seed) -> None:  # type: ignore[no-untyped-def]
    values = np.random.default_rng(seed).random(shape)
    got = resample(
        torch.from_numpy(values)[None], torch.tensor([region]), torch.tensor([view]), grid
    )[0]
    # A fine point falls on the wrong side of an edge by at most 1/60 of a cell, and at most 10
    # edges an axis cross one cell: the twin's error, not the routine's.
    expected = twin(values, region, view, grid)
    crossings = 2 + max(
        (view[2] - view[0]) / grid[1] / (region[2] - region[0]) * shape[1],
        (view[3] - view[1]) / grid[0] / (region[3] - region[1]) * shape[0],
    )
    np.testing.assert_allclose(got.numpy(), expected, atol=2 * crossings / 60)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    times=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_whole_multiples_are_block_means(shape, times, seed) -> None:  # type: ignore[no-untyped-def]
    values = np.random.default_rng(seed).random((shape[0] * times, shape[1] * times))
    got = resample(torch.from_numpy(values)[None], UNIT, UNIT, shape)[0].numpy()
    blocks = values.reshape(shape[0], times, shape[1], times).mean((1, 3))
    np.testing.assert_allclose(got, blocks, rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    region=boxes,
    seed=st.integers(0, 99),
)
def test_mass_is_kept_where_the_view_covers_the_map(shape, grid, region, seed) -> None:  # type: ignore[no-untyped-def]
    values = torch.from_numpy(np.random.default_rng(seed).random(shape))[None]
    view = (region[0] - 0.3, region[1] - 0.1, region[2] + 0.2, region[3] + 0.4)
    got = resample(values, torch.tensor([region]), torch.tensor([view]), grid)

    def area(box: tuple[float, ...]) -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    assert float(got.mean()) * area(view) == pytest.approx(float(values.mean()) * area(region))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_maps_turn_as_images_do(flip: bool, quarters: int) -> None:
    values = np.arange(16.0).reshape(4, 4)
    turned = turned_array(values, flip, quarters)
    stack = torch.from_numpy(np.stack([values, values]))
    maps = turn_maps(stack, torch.tensor([flip, False]), torch.tensor([quarters, 0]))
    np.testing.assert_array_equal(maps[0].numpy(), turned)
    np.testing.assert_array_equal(maps[1].numpy(), values)
    np.testing.assert_allclose(
        twin(values, (0, 0, 1, 1), (0, 0, 1, 1), (4, 4), flip, quarters, fine=4), turned
    )
