"""Choice of the batch size by a short probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat

BATCH_SIZES = (8, 16, 32, 64)
"""Batch sizes that are tried on a CPU."""
GPU_BATCH_SIZES = (32, 64, 128, 256)
"""Batch sizes that are tried on a GPU."""
# A larger batch needs more memory and delays the first result: it must be faster by this factor.
_GAIN = 1.05
# A probe ends after a batch that took this long, in seconds.
_LONG = 1.0


def probe_batch_size(
    compute: Callable[[NDArray[np.uint8]], object], form: ImageFormat, *, gpu: bool
) -> int:
    """Batch size at which a network is fast, measured on random images.

    Args:
        compute: Computation of a batch, (B, side, side, channels); raises MemoryError if memory
            runs out.
        form: Input format of the network.
        gpu: Whether it runs on a GPU.
    """

    def seconds(size: int) -> float | None:
        """Time of a batch after a first one; None if memory runs out."""
        shape = (size, form.size, form.size, form.channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        try:
            compute(images)
            started = time.perf_counter()
            compute(images)
        except MemoryError:
            return None
        return time.perf_counter() - started

    return choose_batch_size(seconds, GPU_BATCH_SIZES if gpu else BATCH_SIZES)


def choose_batch_size(seconds: Callable[[int], float | None], sizes: Sequence[int]) -> int:
    """Smallest batch size from which on larger ones are hardly faster per image.

    Args:
        seconds: Function that returns the time of a batch of a size; None if memory runs out.
        sizes: Sizes to try, increasing.

    Example:
        >>> choose_batch_size(lambda size: 1e-3 * (size + 4), [8, 16, 32])
        32
        >>> choose_batch_size(lambda size: 1e-3 * size, [8, 16, 32])
        8
    """
    chosen, rate = sizes[0], 0.0
    for size in sizes:
        time = seconds(size)
        if time is None or size / time < _GAIN * rate:
            break
        chosen, rate = size, size / time
        if time > _LONG:
            break
    return chosen
