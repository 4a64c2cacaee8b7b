"""Choice of the batch size: what is measured, and that memory that runs out ends it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.deploy.prediction import (
    BATCH_SIZES,
    GPU_BATCH_SIZES,
    choose_batch_size,
    probe_batch_size,
)

FORM = ImageFormat(8, "squash", 3)


@pytest.mark.parametrize(("gpu", "sizes"), [(False, BATCH_SIZES), (True, GPU_BATCH_SIZES)])
def test_batches_are_images_of_the_model_and_memory_ends_the_probe(
    gpu: bool, sizes: tuple[int, ...]
) -> None:
    seen: list[tuple[int, ...]] = []

    def compute(images: NDArray[np.uint8]) -> None:
        seen.append(images.shape)
        assert images.dtype == np.uint8
        if len(images) > sizes[0]:
            raise MemoryError

    assert probe_batch_size(compute, FORM, gpu=gpu) == sizes[0]
    assert seen == [(sizes[0], 8, 8, 3)] * 2 + [(sizes[1], 8, 8, 3)]


def test_other_errors_are_not_hidden() -> None:
    def compute(images: NDArray[np.uint8]) -> None:
        raise RuntimeError("wrong shape")

    with pytest.raises(RuntimeError, match="wrong shape"):
        probe_batch_size(compute, FORM, gpu=False)


def test_a_long_batch_ends_the_probe() -> None:
    asked: list[int] = []

    def seconds(size: int) -> float:
        asked.append(size)
        return 2.0

    assert choose_batch_size(seconds, BATCH_SIZES) == BATCH_SIZES[0]
    assert asked == [BATCH_SIZES[0]]
