"""Maps on the grid of the cache: a faint mark is kept, rounding is not stretched to noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from preceptor.data.geometry import MAP_SIDE
from preceptor.data.images import decode_map
from preceptor.data.resampling import on_unit_square, resample, stored_map


def test_maps_are_stretched_and_a_faint_mark_survives(tmp_path: Path) -> None:
    values = np.zeros((200, 200), np.uint16)
    values[10:12, 20:22] = 9
    Image.fromarray(values).save(tmp_path / "faint.png")
    stored = stored_map(decode_map(tmp_path / "faint.png"))
    assert stored.max() == 255
    row, column = divmod(int(stored.argmax()), MAP_SIDE)
    assert 10 / 200 - 1 / MAP_SIDE <= row / MAP_SIDE <= 12 / 200
    assert 20 / 200 - 1 / MAP_SIDE <= column / MAP_SIDE <= 22 / 200


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


def test_a_map_of_the_average_of_fine_stripes_is_not_stretched_to_noise(tmp_path: Path) -> None:
    """Stripes finer than the grid: only the rounding of the means differs from cell to cell."""
    stripes = np.tile(np.array([50000, 50001], np.uint16), (512, 256))
    Image.fromarray(stripes).save(tmp_path / "m.png")
    assert not stored_map(decode_map(tmp_path / "m.png")).any()
