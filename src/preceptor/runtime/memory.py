"""Memory of devices: out-of-memory detection, peak, and the workspace of matrix products."""

from __future__ import annotations

import errno
import os
import sys

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
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
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
    # Before its first use in a process, a GPU has no statistics, and torch raises an error.
    if device.type == "cuda" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes: on a GPU the memory reserved by torch since `release_memory`, otherwise
    the resident memory of this process since its start; None if unknown.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_memory(device: torch.device) -> int | None:
    """Total memory of a GPU in bytes; None for other devices."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)
