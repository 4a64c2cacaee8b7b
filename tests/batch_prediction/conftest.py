"""Folders of images of the tests of `preceptor predict`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.image_files import ImageFiles


@pytest.fixture
def folder(image_files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the images, below the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(image_files.good[0].parent, tmp_path / "scans")
    return tmp_path
