"""A mode that refuses operations whose result the host must wait for."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What .item(), bool(), float() and nonzero() come down to; boolean indexing is told below.
READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class NoReads(TorchDispatchMode):
    """Raises an AssertionError for an operation whose result the host must wait for."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        masked = function is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        waits = masked or function in READS
        assert not waits, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))
