"""Replaced files and folders, failed writes, walks and relative paths."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from preceptor.annotations.files import ImageFiles, files_below
from preceptor.errors import InputError
from preceptor.utils.files import (
    default_cache_dir,
    failed_write,
    relative_path,
    replacing,
    tensors_to,
    walk,
)
from tests.small_files import files_up_to


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == tmp_path
        assert partial.name.startswith(".")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_removed_after_the_new_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, remove, seen = tmp_path / "best", shutil.rmtree, list[list[str]]()
    (path / "deep").mkdir(parents=True)

    def removed(folder: Path, **options: bool) -> None:
        seen.append([file.name for file in path.iterdir()])
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", removed)
    with replacing(path) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert seen == [["new"]]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_stays_if_the_new_one_cannot_have_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "best", Path.replace
    path.mkdir()
    (path / "old").touch()

    def stopped(one: Path, to: Path) -> Path:
        if one.is_dir():
            raise KeyboardInterrupt
        return replace(one, to)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.mkdir()
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_replaces_nothing_that_was_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def both() -> None:
        with replacing(path, new=True) as partial:
            partial.mkdir()
            path.mkdir()
            (path / "of another").touch()

    with pytest.raises(InputError, match="out exists already"):
        both()
    assert [*tmp_path.rglob("*")] == [path, path / "of another"]


def test_a_link_to_a_folder_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    path, target = tmp_path / "best", tmp_path / "elsewhere"
    target.mkdir()
    (target / "old").touch()
    path.symlink_to(target)
    with replacing(path) as partial:
        partial.mkdir()
    assert not path.is_symlink()
    assert (target / "old").exists()
    assert sorted(tmp_path.iterdir()) == [path, target]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_and_nothing_else(
    tmp_path: Path, folder: bool, error: BaseException
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def half() -> None:
        with replacing(path) as partial:
            if folder:
                partial.mkdir()
            (partial / "x" if folder else partial).write_text("half")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("letter", ["a", "ü", "像", "𠮷"])
def test_long_names_and_names_beyond_ascii_fit(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (240 // len(letter.encode())) + ".csv")
    with replacing(path) as partial:
        partial.write_text("x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("flush", [True, False])
def test_the_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: bool
) -> None:
    """The order of what the system is asked for: files, their folder, the name, its folder."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        done.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    with replacing(tmp_path / "a", flush=flush) as partial:
        partial.mkdir()
        (partial / "inside").write_text("x")
    wanted = ["inside", partial.name, "renamed", tmp_path.name] if flush else ["renamed"]
    assert done == wanted


@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_names_the_final_path(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "a"

    def write() -> None:
        with replacing(path) as partial:
            if folder:
                partial.mkdir()
            (partial / "x" if folder else partial).write_bytes(bytes(5000))

    with pytest.raises(OSError, match="too large") as caught, files_up_to(4000):
        write()
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_tensors_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(OSError) as caught, files_up_to(1000), tensors_to(path):  # noqa: PT011
        save_file({"w": torch.zeros(1000)}, path)
    told = failed_write(caught.value, tmp_path)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told


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
    found = relative_path(path, root / folder)
    assert not Path(found).is_absolute()
    assert (root / folder / found).samefile(path)


def test_an_empty_variable_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PRECEPTOR_CACHE", "")
    assert default_cache_dir() == tmp_path / "preceptor"
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
