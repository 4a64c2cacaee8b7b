"""Training of one run.

`train` is imported at first use, since the configs and records of runs need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preceptor.training.run import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    """Import the public function from its module."""
    if name not in __all__:
        raise AttributeError(f"module 'preceptor.training' has no attribute {name!r}")
    return getattr(importlib.import_module("preceptor.training.run"), name)
