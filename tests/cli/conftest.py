"""A data set at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets import squares


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, under a folder whose name has a blank, a comma and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("cli") / "größe, 画像 #1"
    squares(folder, splits={"train": 20, "val": 10, "test": 10})
    return folder
