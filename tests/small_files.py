"""A limit of the size of files, which fails as a full disk does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Context in which this process can write no file of more bytes."""
    resource = pytest.importorskip("resource", reason="the system has no limit of this kind")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
