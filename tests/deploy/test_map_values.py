"""Maps as arrays, against the formulas for tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from preceptor.annotations.export import map_over_image
from preceptor.config.settings import Fit, ImageFormat
from preceptor.deploy.prediction import CONSTANT_TOLERANCE, LEAST_SPREAD, normalized, over_image
from preceptor.maps.store import StoreInfo
from preceptor.saliency.maps import CONSTANT_TOLERANCE as OF_TENSORS
from preceptor.saliency.maps import LEAST_SPREAD as LEAST_OF_TENSORS
from preceptor.saliency.maps import normalize


def test_normalization_is_that_of_tensors() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(8, 5, 7)).astype(np.float32)
    maps[1] = 3.5
    maps[2] = 1 + 1e-6 * maps[2]
    maps[3] = 0
    maps[4] *= 1e-35
    expected = normalize(torch.from_numpy(maps)).numpy()
    np.testing.assert_array_equal(normalized(maps), expected)
    assert not expected[1:5].any()
    assert (CONSTANT_TOLERANCE, LEAST_SPREAD) == (OF_TENSORS, LEAST_OF_TENSORS)


@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(640, 400), (300, 512), (448, 448)])
def test_a_map_over_the_image_lies_as_exported_maps_lie(fit: Fit, size: tuple[int, int]) -> None:
    grid = normalized(np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32))
    found = over_image(grid, ImageFormat(224, fit), size)
    assert found.shape == size[::-1]
    assert found.dtype == np.float32
    info = StoreInfo("teacher", "cam", fit, 224, ("a", "b"), {})
    expected = map_over_image(grid, info, size)
    # They step from pixel to pixel of the canvas, at most by the slope between two cells.
    assert np.abs(found - expected).max() < 0.1
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1)])
def test_tiny_images_have_maps(size: tuple[int, int]) -> None:
    grid = np.eye(3, dtype=np.float32)
    found = over_image(grid, ImageFormat(64, "letterbox"), size)
    assert found.shape == size[::-1]
    assert np.isfinite(found).all()
