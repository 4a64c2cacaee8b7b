from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import center_of_mass
from scipy.stats import entropy

from preceptor.predictor.map_statistics import map_statistics
from preceptor.predictor.map_values import normalised


def test_statistics_are_those_of_scipy() -> None:
    maps = np.random.default_rng(0).normal(size=(5, 4, 7)).astype(np.float32)
    for one, (x, y, area, spread) in zip(normalised(maps), map_statistics(maps), strict=True):
        row, column = center_of_mass(one)
        assert (x, y) == pytest.approx(((column + 0.5) / 7, (row + 0.5) / 4), abs=1e-5)
        assert area == pytest.approx(one.mean(), abs=1e-6)
        assert spread == pytest.approx(entropy(one.ravel()) / np.log(28), abs=1e-5)


def test_constant_maps_have_none() -> None:
    assert np.isnan(map_statistics(np.ones((2, 3, 3), np.float32))).all()
