"""Relative paths, against os.path.relpath and against what the system finds behind them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preceptor.utils.files import RelativePaths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """home/scratch, a link to mnt/deep/big, beside home/images, and a link to these."""
    for folder in ("home/images", "home/own", "mnt/deep/big/imp"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "home" / "scratch").symlink_to(tmp_path / "mnt" / "deep" / "big")
    (tmp_path / "mnt" / "pictures").symlink_to(tmp_path / "home" / "images")
    for folder in ("home/images", "home", "mnt/deep/big", "mnt/deep/big/imp"):
        (tmp_path / folder / "a.png").write_text(folder)
    return tmp_path


@pytest.mark.parametrize("folder", ["home", "home/own", "home/images", "mnt/deep/big/imp"])
@pytest.mark.parametrize("file", ["home/images/a.png", "home/a.png", "mnt/deep/big/imp/a.png"])
def test_without_links_they_are_those_of_the_library(root: Path, folder: str, file: str) -> None:
    path = str(root / file)
    assert RelativePaths(root / folder).of(path) == os.path.relpath(path, root / folder)


@pytest.mark.parametrize(
    "file",
    [
        "home/images/a.png",
        "mnt/pictures/a.png",
        "home/scratch/a.png",
        "home/scratch/../../pictures/a.png",
        "mnt/pictures/../a.png",
    ],
)
@pytest.mark.parametrize("folder", ["home/scratch", "home/scratch/imp", "home/own", "mnt/pictures"])
def test_behind_links_they_lead_to_the_file(root: Path, folder: str, file: str) -> None:
    path = f"{root}/{file}"
    found = RelativePaths(root / folder).of(path)
    assert not Path(found).is_absolute()
    assert (root / folder / found).samefile(path)
