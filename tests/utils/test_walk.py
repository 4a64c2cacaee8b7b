"""Walking through folders: hidden ones are left out, and one that cannot be read is an error."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preceptor.annotations.files import ImageFiles, files_below
from preceptor.utils.files import walk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/c", "a", ".hidden", "lost+found"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.png").touch()
    return tmp_path


def bases(folder: Path) -> list[str]:
    return [os.path.relpath(base, folder) for base, _, _ in walk(str(folder))]


def test_folders_come_in_order_without_hidden_ones(folder: Path) -> None:
    assert bases(folder) == [".", "a", "b", "b/c"]


@pytest.mark.parametrize(
    "use", [bases, ImageFiles, lambda folder: files_below(folder, ".png")], ids=["", "images", "s"]
)
def test_a_folder_that_cannot_be_read_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], object]
) -> None:
    whole = os.scandir

    def scandir(path: str | int) -> Iterator[os.DirEntry[str]]:
        if isinstance(path, str) and Path(path).name in ("c", "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="b/c"):
        use(folder)


def test_links_to_folders_are_followed_and_no_folder_comes_twice(tmp_path: Path) -> None:
    for name in ("root/a", "root/b/c", "root/.store/s", "other/x", "other/.hidden"):
        (tmp_path / name).mkdir(parents=True)
    root = tmp_path / "root"
    for name, target in {
        "0 copy": root / "b",  # it comes as b anyway
        "1 hidden": root / ".store",  # which no other way leads to
        "2 other": tmp_path / "other",
        "3 inner": tmp_path / "other" / "x",
        "4 above": tmp_path,
        "b/back": root,
        "b/up": Path(".."),
        "../other/round": tmp_path / "other",
        "../other/x/root": root,
    }.items():
        (root / name).symlink_to(target)
    found = bases(root)
    assert found == [
        ".",
        "1 hidden",
        "1 hidden/s",
        "2 other",
        "3 inner",  # and not once more as 2 other/x
        "4 above",
        "a",
        "b",
        "b/c",
    ]


def test_images_below_a_linked_folder_are_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(folder / "b")
    assert ImageFiles(tmp_path / "set").names == ["linked/c/x.png"]
    assert files_below(tmp_path / "set", ".png") == [tmp_path / "set" / "linked/c/x.png"]
