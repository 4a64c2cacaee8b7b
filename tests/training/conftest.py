"""A data set to train on, and the environment of trainings in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datasets import squares


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small table of images in a folder with spaces; a file may have other images of its own."""
    return squares(tmp_path_factory.mktemp("data with spaces"))


@pytest.fixture(scope="module")
def one_thread_and_own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Environment of started processes: one thread, and a cache that no other test file shares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRECEPTOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
