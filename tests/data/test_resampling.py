"""Resampling, turning and storing of maps, against slow twins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preceptor.data.geometry import MAP_SIDE
from preceptor.data.images import decode_map
from preceptor.data.resampling import (
    on_unit_square,
    resample,
    stored_map,
)
from tests.data.map_twin import twin

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


@pytest.mark.parametrize(
    ("ground", "height"), [(0, 60000), (60000, 300), (60000, 100), (30000, 3000), (65000, 255)]
)
def test_a_faint_16_bit_map_keeps_what_a_float_map_keeps(
    tmp_path: Path, ground: int, height: int
) -> None:
    """A bell on a bright ground, against the same file as a map of a folder, which stays float."""
    place = np.linspace(-2, 2, 150)
    bell = np.exp(-(place[:, None] ** 2) - place[None] ** 2)
    Image.fromarray(np.rint(ground + height * bell).astype(np.uint16)).save(tmp_path / "m.png")
    stored = stored_map(decode_map(tmp_path / "m.png")).astype(np.float64) / 255
    raw = torch.from_numpy(decode_map(tmp_path / "m.png")).double()[None]
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    exact = resample(raw, unit, unit, (MAP_SIDE, MAP_SIDE))[0].numpy()
    exact = (exact - exact.min()) / (exact.max() - exact.min())
    assert np.abs(stored - exact).max() <= 0.5 / 255 + 1e-4
    given = on_unit_square(decode_map(tmp_path / "m.png")).astype(np.float64)
    assert np.abs(given / given.max() - exact).max() <= 1e-4


@pytest.mark.parametrize("value", [0, 1, 17, 54321, 65535])
@pytest.mark.parametrize("side", [3, 128, 333])
def test_a_constant_map_is_not_stretched_to_noise(tmp_path: Path, value: int, side: int) -> None:
    """One above 0 marks the whole image."""
    Image.fromarray(np.full((side, side), value, np.uint16)).save(tmp_path / "m.png")
    assert (stored_map(decode_map(tmp_path / "m.png")) == (255 if value else 0)).all()
    assert (on_unit_square(decode_map(tmp_path / "m.png")) == (1 if value else 0)).all()
