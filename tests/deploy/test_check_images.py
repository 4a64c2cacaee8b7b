"""Images of a check: all of them, in order, in batches of several sizes."""

from __future__ import annotations

import numpy as np
import pytest

from preceptor.config.settings import ImageFormat
from preceptor.deploy.export import CheckImages, synthetic_images


@pytest.mark.parametrize("count", [1, 2, 17, 40])
def test_batches_hold_every_image_once_and_in_order(count: int) -> None:
    images = CheckImages(lambda which: which[:, None], np.arange(count))  # type: ignore[arg-type,return-value]
    batches = list(images.batches())
    assert np.concatenate(batches)[:, 0].tolist() == list(range(count))
    assert len(batches[0]) == 1


def test_synthetic_images_are_the_same_each_time_and_differ_from_each_other() -> None:
    form = ImageFormat(20, channels=1)
    one, two = (synthetic_images(form, 3) for _ in range(2))
    first = one.read(one.positions)
    assert first.shape == (3, 1, 20, 20)
    assert first.dtype == np.uint8
    assert (first == two.read(two.positions)).all()
    assert (first[0] != first[1]).any()
