"""Devices of the tests that need a GPU.

    make gpu                                                on a machine with a GPU
    PRECEPTOR_TEST_DEVICE=cpu pytest -m gpu tests/gpu       what a CPU can run of them

`tests/test_emulated_card.py` runs them on an emulated GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.datasets import squares

SPLITS = {"train": 16, "val": 8, "test": 4, "test-unseen": 4}
HERE = Path(__file__).parent
EMULATED = "PRECEPTOR_EMULATED_CARD" in os.environ


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The first GPU, in full float32, or the CPU where that is asked for.

    By default a GPU computes float32 convolutions in TF32, with 10 bits of mantissa.
    """
    name = os.environ.get("PRECEPTOR_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU; PRECEPTOR_TEST_DEVICE=cpu runs what a CPU can run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        yield torch.device(name)


@pytest.fixture
def card(device: torch.device) -> torch.device:
    """A real GPU."""
    if device.type != "cuda" or EMULATED:
        pytest.skip("needs a real GPU")
    return device


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("data"), splits=SPLITS)
