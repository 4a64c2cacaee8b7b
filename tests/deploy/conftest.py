"""Folders of images, model folders, and a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.serving import Running, running
from tests.image_files import ImageFiles
from tests.made_once import made_once
from tests.model_folders import model_folder


@pytest.fixture
def folder(image_files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the images, below the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(image_files.good[0].parent, tmp_path / "scans")
    return tmp_path


@pytest.fixture(scope="session")
def served_folders() -> dict[str, Path]:
    """Model folders: two classes, and three without a positive one."""

    def make(folder: Path) -> dict[str, Path]:
        classes = ("a", "b", "c")
        return {
            "best": model_folder(
                folder / "best", "test_byobnet", 1, fit="letterbox", input_size=96
            ),
            "three": model_folder(
                folder / "three", "test_resnet", 4, classes=classes, positive=None
            ),
        }

    return made_once("served", make)[1]


@pytest.fixture(scope="session")
def pictures(image_files: ImageFiles) -> ImageFiles:
    """Image files of all kinds."""
    return image_files


@pytest.fixture(scope="session")
def server(served_folders: dict[str, Path]) -> Iterator[Running]:
    """Server without keys, for tests that change nothing."""
    with running(served_folders["best"], pixels=10_000_000) as found:
        yield found
