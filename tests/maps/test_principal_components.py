"""Maps of principal components, against scikit-learn and against a resize by Pillow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA

from preceptor.config.settings import Fit
from preceptor.data.geometry import fit_boxes, render
from preceptor.maps.sources import SIDE, principal_maps, thumbnails

COUNT = 40


def pictures(count: int = COUNT) -> NDArray[np.uint8]:
    """(n, 8, 6) grey pictures: two gradients of random strength, and noise."""
    generator = np.random.default_rng(0)
    down, across = np.mgrid[0:8, 0:6] / 5
    strength = generator.normal(0, 20, (2, count, 1, 1))
    noise = generator.normal(0, 6, (count, 8, 6))
    values = 128 + strength[0] * down + strength[1] * across + noise
    return np.rint(values).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("components", [1, 2, 5, COUNT - 1])
def test_against_scikit_learn(components: int) -> None:
    images = pictures()
    flat = images.reshape(COUNT, -1).astype(np.float64)
    known = PCA(components, svd_solver="full").fit(flat)
    magnitude = np.abs(known.inverse_transform(known.transform(flat)) - known.mean_)
    low, high = magnitude.min(1, keepdims=True), magnitude.max(1, keepdims=True)
    expected = 255 * (magnitude - low) / (high - low)
    found = principal_maps(images, components).reshape(COUNT, -1)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5 + 1e-6  # rounding to whole levels
    assert (found.min(1) == 0).all()
    assert (found.max(1) == 255).all()


def source(images: list[NDArray[np.uint8]], fit: Fit, side: int) -> Any:
    canvases = np.stack([render(image, fit, side) for image in images])
    sizes = np.array([[image.shape[1], image.shape[0]] for image in images], np.int32)
    return SimpleNamespace(side=side, sizes=sizes, canvases=lambda rows: canvases[rows])


@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnails_are_grey_and_without_margins(fit: Fit, channels: int) -> None:
    generator = np.random.default_rng(1)
    shapes = [(96, 64), (64, 96), (64, 64)]
    images = [generator.integers(0, 256, (*shape, channels)).astype(np.uint8) for shape in shapes]
    given = source(images, fit, 192)
    found, regions = thumbnails(given, np.array([2, 0, 1]), fit)
    assert found.shape == (3, SIDE, SIDE)
    boxes = fit_boxes(given.sizes[[2, 0, 1]], fit, 192)
    np.testing.assert_allclose(regions, boxes if fit == "crop" else [[0, 0, 1, 1]] * 3)
    for thumbnail, (left, top, right, bottom), row in zip(found, regions, (2, 0, 1), strict=True):
        image = images[row][..., 0] if channels == 1 else images[row]
        height, width = image.shape[:2]
        box = left * width, top * height, right * width, bottom * height
        grey = Image.fromarray(image).convert("L")
        expected = grey.resize((SIDE, SIDE), Image.Resampling.BOX, box=box)
        # Two resizes in a row against one: both are means over nearly the same pixels.
        assert np.abs(thumbnail.astype(int) - np.asarray(expected, int)).mean() < 6
        assert np.corrcoef(thumbnail.ravel(), np.asarray(expected).ravel())[0, 1] > 0.9
