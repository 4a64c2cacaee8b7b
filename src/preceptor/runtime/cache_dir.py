"""Folder of caches."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """Default folder of caches: PRECEPTOR_CACHE, or the user's cache folder."""
    if "PRECEPTOR_CACHE" in os.environ:
        return Path(os.environ["PRECEPTOR_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "preceptor"
