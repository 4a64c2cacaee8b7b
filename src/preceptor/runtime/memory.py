"""Memory that runs out, on a device or on the machine: how that is told, and what was used."""

from __future__ import annotations

import errno
import sys

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# What torch says in a plain RuntimeError: its CPU allocator, libraries of a GPU, and CUDA itself
# outside torch's own allocator.
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
)
# All that oneDNN says where it cannot allocate.
_WHOLE = {
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: a GPU's, or the machine's.

    Args:
        error: Any; what it was raised from counts too.

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


def release_memory(device: torch.device) -> None:
    """Give what torch keeps for later back to a GPU, and count its peak from here."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Most bytes in use at once: on a GPU what torch reserved since `release_memory`, elsewhere the
    resident memory of this process since its start; None where that is not known.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_memory(device: torch.device) -> int | None:
    """Bytes that a GPU has; None of anything else."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)
