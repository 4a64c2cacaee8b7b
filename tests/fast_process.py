"""Test processes without work that no test is about: flushing, and repeated reading of metadata."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from functools import lru_cache
from typing import Any


def make_fast() -> None:
    """Let this process flush no file and read the entry points of installed packages once."""
    os.fsync = lambda descriptor: None
    read = importlib.metadata.entry_points

    @lru_cache(64)
    def known(folders: tuple[str, ...], given: tuple[tuple[str, Any], ...]) -> Any:
        return read(**dict(given))

    def entry_points(**given: Any) -> Any:
        return known(tuple(sys.path), tuple(sorted(given.items())))

    importlib.metadata.entry_points = entry_points
