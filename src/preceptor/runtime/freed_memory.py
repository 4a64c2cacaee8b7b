"""Freed memory of the C library: kept in the process instead of returned to the system."""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1  # bytes
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keep the memory that this process frees for its next allocations.

    The C library returns large blocks to the system when they are freed. A training on a CPU frees
    the same blocks in every step, so that the system has to map and clear their pages again: a
    tenth to a fifth of the time of a small network. The results of a training do not change.

    The memory is returned when the process ends. Use it in processes that only train or annotate.

    Returns:
        Whether the setting was changed: not with another C library than glibc, nor if one of the
        variables of glibc for the same settings (`MALLOC_TRIM_THRESHOLD_`, …) is set.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if sys.platform != "linux" or any(name in os.environ for name in _VARIABLES):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # musl
        return False
    return bool(set_option(_TRIM_THRESHOLD, _LARGEST)) and bool(set_option(_MMAP_MAX, 0))
