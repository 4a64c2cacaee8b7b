"""Memory of devices and of this process, and the state of torch, which is imported when it is used.

Servers that do not compute use this module, too.
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

# Messages of plain RuntimeErrors: torch's CPU allocator, oneDNN, GPU libraries, and CUDA outside of
# torch's allocator.
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of a GPU or of the machine is exhausted."""
    loaded = sys.modules.get("torch")
    return (
        isinstance(error, MemoryError)
        or (loaded is not None and isinstance(error, loaded.OutOfMemoryError))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS))
        or (error.__cause__ is not None and out_of_memory(error.__cause__))
    )


def fix_order_of_sums() -> None:
    """Fix the order of summation of matrix products on a GPU, before its first product."""
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
    the resident memory of this process since its start; None if unknown."""
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


# Options of mallopt(3) of glibc, by the environment variable of a user for the same.
_OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_MMAP_MAX_": -4}


def return_freed_memory() -> bool:
    """Return each block of 1 MiB or more to the system as soon as it is freed; whether that is set.

    For servers, before they start threads: each thread keeps the blocks in which Pillow decodes.
    """
    return _set_options({"MALLOC_MMAP_THRESHOLD_": 2**20})


def keep_freed_memory() -> bool:
    """Keep the memory that this process frees for its next allocations; whether that is set.

    For trainings on a CPU, which free the same blocks in every step: a tenth to a fifth of the time
    of a small network.
    """
    return _set_options({"MALLOC_TRIM_THRESHOLD_": 2**31 - 1, "MALLOC_MMAP_MAX_": 0})


def _set_options(values: dict[str, int]) -> bool:
    """Set options of glibc, unless the user has set any of them."""
    if sys.platform != "linux" or any(name in os.environ for name in _OPTIONS):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # None with musl
    return set_option is not None and all(
        set_option(_OPTIONS[name], value) for name, value in values.items()
    )


class PixelBudget:
    """Limit on the pixels that all threads hold decoded at the same time."""

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


@contextlib.contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Context in which a model is in evaluation mode; the mode of each submodule is restored."""
    from torch import nn

    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        if isinstance(model, nn.Module) and any(modes):
            model.eval()
        yield
    finally:
        for part, training in zip(parts, modes, strict=True):
            if part.training != training:
                part.training = training


@contextlib.contextmanager
def kept_torch_state() -> Iterator[None]:
    """Context after which torch has the threads, algorithms and random numbers of before."""
    import torch

    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if used else None
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        torch.random.set_rng_state(random)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
