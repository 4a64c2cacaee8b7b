"""Photographs of the built-in benchmark."""

from __future__ import annotations

import pytest

from preceptor.benchmark.forgeries import Pixels
from preceptor.benchmark.photographs import PHOTOGRAPHS, read_photograph


@pytest.fixture(scope="session")
def photographs() -> dict[str, Pixels]:
    """Photographs by name."""
    return {photograph.name: read_photograph(photograph) for photograph in PHOTOGRAPHS}
