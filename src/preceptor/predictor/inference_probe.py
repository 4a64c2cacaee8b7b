"""Choice of the batch size by a short probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BATCH_SIZES = (8, 16, 32, 64)
"""Batch sizes that are tried on a CPU."""
GPU_BATCH_SIZES = (32, 64, 128, 256)
"""Batch sizes that are tried on a GPU."""
# A larger batch needs more memory and delays the first result: it must be faster by this factor.
_GAIN = 1.05
# A probe ends after a batch that took this long, in seconds.
_LONG = 1.0


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
