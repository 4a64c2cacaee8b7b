"""Readers of annotations of other tools, and of published collections."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preceptor.data.importers.coco import read_coco
    from preceptor.data.importers.und import read_und
    from preceptor.data.importers.write import write_import

# Imported at first use: the command line asks for one format only.
_PLACES = {
    "read_coco": "preceptor.data.importers.coco",
    "read_und": "preceptor.data.importers.und",
    "write_import": "preceptor.data.importers.write",
}

__all__ = ["read_coco", "read_und", "write_import"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _PLACES:
        raise AttributeError(f"module 'preceptor.data.importers' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
