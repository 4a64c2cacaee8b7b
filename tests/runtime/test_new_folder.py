"""Folders that are filled in their place: finished, or gone, or begun again."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.errors import InputError
from preceptor.runtime.file_lock import locked
from preceptor.runtime.new_folder import MARK, new_folder


def fill(folder: Path, text: str) -> None:
    with new_folder(folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, error: BaseException
) -> None:
    folder = tmp_path / "deep" / "new"
    with pytest.raises(type(error)), new_folder(folder):  # noqa: PT012
        (folder / "sub").mkdir()
        raise error
    assert not folder.exists()
    folder.mkdir()  # an empty one is as good as none
    fill(folder, "whole")
    assert names(folder) == ["sub", "sub/a.txt"]


def test_contents_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="it is not empty; name a new folder"):
        fill(tmp_path, "whole")
    with pytest.raises(InputError, match="it is a file; name a new folder"):
        fill(tmp_path / "mine.txt", "whole")
    assert names(tmp_path) == ["mine.txt"]


def test_what_a_killed_process_left_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("half")
    (tmp_path / "half.txt").touch()
    fill(tmp_path, "whole")
    assert names(tmp_path) == ["sub", "sub/a.txt"]
    assert (tmp_path / "sub" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("content", ["the same", "other"])
def test_what_an_interruption_left_is_kept_for_the_same_content(
    tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), new_folder(folder, "the same") as is_kept:  # noqa: PT012
        assert not is_kept
        (folder / "half.txt").touch()
        raise KeyboardInterrupt
    assert names(folder) == [MARK, "half.txt"]
    with new_folder(folder, content) as is_kept:
        assert is_kept == (content == "the same")
        assert names(folder) == [MARK, *(["half.txt"] if is_kept else [])]
    assert names(folder) == (["half.txt"] if is_kept else [])


def test_an_error_leaves_nothing_of_any_content(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with pytest.raises(OSError, match="full"), new_folder(folder, "text"):
        raise OSError("full")
    assert not folder.exists()


def test_a_folder_that_another_process_fills_is_refused(tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    (tmp_path / "a.txt").touch()
    with locked(tmp_path / MARK) as has_lock:
        if not has_lock:
            pytest.skip("the system has no locks")
        with pytest.raises(InputError, match="another process writes it"):
            fill(tmp_path, "whole")
    assert names(tmp_path) == [MARK, "a.txt"]
