import os
import re
import shutil
from pathlib import Path

import pytest

import preceptor
from preceptor.utils.files import copy_folder, replacing
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


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "best"
    path.mkdir()
    (path / "old").touch()
    with replacing(path) as partial:
        (partial / "deep").mkdir(parents=True)
        (partial / "deep" / "new").write_text("x")
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["new"]
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


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


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


def test_nothing_else_writes_and_renames_by_itself() -> None:
    source = Path(preceptor.__file__).parent
    renames = re.compile(r"(temporary|partial|tmp)\.(replace|rename)\(|os\.(replace|rename)\(")
    found = {path.name for path in source.rglob("*.py") if renames.search(path.read_text())}
    assert found == {"files.py"}


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


def test_a_file_that_cannot_be_copied_names_the_copy_or_the_source(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "copy"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "x").write_bytes(bytes(5000))

    def copy() -> None:
        with replacing(path) as partial:
            copy_folder(source, partial)

    with pytest.raises(OSError, match="too large") as caught, files_up_to(4000):
        copy()
    assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    assert not path.exists()
    copy()
    assert [one.relative_to(path).as_posix() for one in path.rglob("*")] == ["deep", "deep/x"]
    (source / "gone").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError) as missing:
        copy()
    assert missing.value.filename == str(source / "gone")
