"""Model folders and a server of several models, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image_files import ImageFiles, write_image_files
from tests.model_folders import model_folder
from tests.serve.serving import Running, running


@pytest.fixture(scope="session")
def served_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders: two classes, and three without a positive one."""
    folder = tmp_path_factory.mktemp("served")
    return {
        "best": model_folder(folder / "best", "test_byobnet", 1, fit="letterbox", input_size=96),
        "three": model_folder(
            folder / "three", "test_resnet", 4, classes=("a", "b", "c"), positive=None
        ),
    }


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    """Image files of all kinds."""
    return write_image_files(tmp_path_factory.mktemp("pictures") / "all")


@pytest.fixture(scope="session")
def server(served_folders: dict[str, Path]) -> Iterator[Running]:
    """Server without keys, for tests that change nothing."""
    with running(served_folders, reload=0.0, pixels=10_000_000, images=20) as found:
        yield found
