"""Memory of a device that was not used yet."""

from __future__ import annotations

import torch

from preceptor.runtime.memory import release_memory


def test_a_gpu_that_was_not_used_has_nothing_to_release() -> None:
    """torch raises an error there, with a GPU and without."""
    if not torch.cuda.is_initialized():
        release_memory(torch.device("cuda"))
