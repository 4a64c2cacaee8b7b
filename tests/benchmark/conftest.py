"""Photographs of the built-in benchmark."""

from __future__ import annotations

import pytest

from preceptor.benchmark.forged import PHOTOGRAPHS, read_photograph
from preceptor.benchmark.forgeries import Pixels


@pytest.fixture(scope="session")
def photographs() -> dict[str, Pixels]:
    """Photographs by name."""
    return {photograph.name: read_photograph(photograph) for photograph in PHOTOGRAPHS}
