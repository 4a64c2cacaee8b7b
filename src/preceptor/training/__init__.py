"""Training of one run.

The public names are imported when first used: other packages import modules of this one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preceptor.training.run import train

_PLACES = {"train": "preceptor.training.run"}

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    """Import a public name from where it is defined."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
