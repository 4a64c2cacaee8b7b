"""Memory of devices and of this process: limits, peaks, and what is returned to the system.

torch is not imported here, because servers that do not compute use this module, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Messages of plain RuntimeErrors: torch's CPU allocator, GPU libraries, and CUDA outside of torch's
# allocator.
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
)
# oneDNN's message for a failed allocation.
_WHOLE = {
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of a GPU or of the machine is exhausted.

    Args:
        error: Any exception; its causes are examined as well.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(ValueError("not enough memory"))
        (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    loaded = sys.modules.get("torch")
    if loaded is not None and isinstance(error, loaded.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    if text in _WHOLE or any(word in text for word in _WORDS):
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


def fix_order_of_sums() -> None:
    """Fix the order of summation of matrix products on a GPU.

    CUDA's library reads the variable at its first product in a process, which may be that of a step
    before a training.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def release_memory(device: torch.device) -> None:
    """Release torch's cached GPU memory and reset its peak statistics."""
    import torch

    # Before its first use in a process, a GPU has no statistics, and torch raises an error.
    if device.type == "cuda" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes: on a GPU the memory reserved by torch since `release_memory`, otherwise
    the resident memory of this process since its start; None if unknown.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_memory(device: torch.device) -> int | None:
    """Total memory of a GPU in bytes; None for other devices."""
    if device.type != "cuda":
        return None
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


_MMAP_THRESHOLD = -3  # parameter of mallopt(3)


def return_freed_memory() -> bool:
    """Return each block of 1 MiB or more to the system as soon as it is freed.

    glibc raises its own threshold up to 32 MiB. Each thread then keeps the blocks of 16 MiB in
    which Pillow decodes. Call it at the start of a server, before it starts threads.

    Returns:
        Whether the setting was changed: only with glibc, and not if `MALLOC_MMAP_THRESHOLD_` is
        set.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and bool(set_option(_MMAP_THRESHOLD, 2**20))


class PixelBudget:
    """Limit on the pixels that all threads hold decoded at the same time.

    Args:
        most: Largest number of pixels. A larger image is decoded alone.

    Example:
        >>> budget = PixelBudget(1_000_000)
        >>> with budget.reserve(640 * 480):
        ...     pass  # decode and use the image
    """

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Context that holds a share of the budget; it waits until the share is free."""
        share = min(pixels, self._most)
        # Small images wait behind a large one, which they could keep waiting forever otherwise.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify()


DECODING = PixelBudget(50_000_000)
"""Budget of a server: an image of 50 megapixels in RGBA takes 200 MB decoded, and 200 MB more on
white."""


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
