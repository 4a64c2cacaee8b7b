"""Folder of caches."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """Default folder of caches: PRECEPTOR_CACHE, or the user's cache folder."""
    if own := os.environ.get("PRECEPTOR_CACHE"):  # an empty path would be the working folder
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "preceptor"
