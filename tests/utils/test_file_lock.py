"""Locks on files, also where the file system has none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from preceptor.utils.files import lock_for_good, locked, locked_if_free, shared_lock

fcntl = pytest.importorskip("fcntl", reason="a system without locks")


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locked(path) as own:
        assert own
        with locked_if_free(path) as other:
            assert not other
    with locked_if_free(path) as free:
        assert free


def test_the_lock_of_an_open_file_lasts_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with path.open("w") as file, path.open("w") as other:
        assert lock_for_good(file.fileno())
        assert not lock_for_good(other.fileno())
        file.close()
        assert lock_for_good(other.fileno())


def test_a_shared_lock_has_many_holders_and_excludes_the_other_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with shared_lock(path) as one, shared_lock(path) as other:
        assert one
        assert other
        with locked_if_free(path) as free:
            assert not free
    with locked_if_free(path) as free:
        assert free


def test_a_shared_lock_that_cannot_be_created_is_told(tmp_path: Path) -> None:
    with shared_lock(tmp_path / "none" / "a.lock") as own:
        assert not own


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_the_block_runs_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(handle: int, kind: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", refused)  # no such file system here
    with locked(tmp_path / "a.lock") as own:
        assert not own
    with shared_lock(tmp_path / "a.lock") as own:
        assert not own
    with locked_if_free(tmp_path / "a.lock") as free:
        assert not free
    with (tmp_path / "a.lock").open("w") as file:
        assert lock_for_good(file.fileno())


def test_other_errors_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none" / "a.lock"):
        pass

    def failed(handle: int, kind: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", failed)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "a.lock"):
        pass
    with (tmp_path / "a.lock").open("w") as file, pytest.raises(OSError, match="Input/output"):
        lock_for_good(file.fileno())
