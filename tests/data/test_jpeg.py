"""The lossy part of JPEG, against the codec of Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.resampling import cosines, jpeg_round_trip, quantisation_tables


def picture(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """A smooth image with an edge and a little noise."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height))).astype(int)
    image[height // 3 :, width // 2 :] //= 2
    image += generator.integers(-6, 7, image.shape)
    return image.clip(0, 255).astype(np.uint8)[..., :channels]


def by_pillow(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).reshape(image.shape)


@pytest.mark.parametrize("quality", [30, 49, 50, 75, 95])
def test_tables_are_those_that_pillow_writes(quality: int) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(16, 16, 3)).save(stream, "JPEG", quality=quality)
    written = Image.open(stream).quantization  # type: ignore[attr-defined]
    expected = [np.array(written[k]).reshape(8, 8) for k in (0, 1)]
    np.testing.assert_array_equal(quantisation_tables(np.array([quality]))[0], expected)


def test_the_transform_is_orthonormal() -> None:
    matrix = cosines().astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-6)


@pytest.mark.parametrize("size", [(48, 64), (33, 45)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_as_after_the_codec(size: tuple[int, int], channels: int) -> None:
    """Up to coefficients that lie between two steps, which the codec's integers round otherwise."""
    qualities = np.array([30, 60, 95])
    image = picture(*size, channels)
    batch = torch.from_numpy(image).permute(2, 0, 1).float().expand(3, -1, -1, -1)
    found = jpeg_round_trip(
        batch, torch.from_numpy(quantisation_tables(qualities)), torch.from_numpy(cosines())
    )
    assert torch.equal(found, found.round().clamp(0, 255))
    for quality, one in zip(qualities.tolist(), found, strict=True):
        codec = by_pillow(image, quality).astype(int)
        lost = np.abs(codec - image).mean()
        difference = np.abs(one.permute(1, 2, 0).numpy() - codec)
        assert difference.mean() < 0.25 * lost + 0.3
        assert np.percentile(difference, 99) <= 12
