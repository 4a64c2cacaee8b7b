"""The SQLite file: versions, other programs, other files, a full disk."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preceptor.deploy.http import RefusedError, conflict
from preceptor.errors import InputError, RunFailedError
from preceptor.label.db import FORMAT, Connection, Database, connect, serving, told_errors
from tests.small_files import files_up_to


def put(key: str, value: str = "1") -> object:
    return lambda connection: connection.execute("INSERT INTO settings VALUES (?, ?)", (key, value))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "a.label.sqlite"
    connect(found, create=True).close()
    return found


def keys(path: Path) -> set[str]:
    connection = connect(path, readonly=True)
    try:
        return {row[0] for row in connection.execute("SELECT key FROM settings")}
    finally:
        connection.close()


def test_a_refused_change_leaves_the_others_of_its_commit_alone(path: Path) -> None:
    database = Database(path)
    started, go = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        started.set()
        go.wait()

    def refuse(connection: Connection) -> None:
        connection.execute("INSERT INTO settings VALUES ('refused', '1')")
        raise conflict("no")

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(database.write, wait)
        started.wait()  # the writer is busy: what follows is committed together
        jobs = [pool.submit(database.write, put(str(at))) for at in range(3)]  # type: ignore[arg-type]
        refused = pool.submit(database.write, refuse)
        twice = pool.submit(database.write, put("0"))  # type: ignore[arg-type]
        go.set()
        first.result()
        errors = [job.exception() for job in (*jobs, twice)]
        assert isinstance(refused.exception(), RefusedError)
    # One of the two with the same key is refused by SQLite.
    assert sum(isinstance(one, sqlite3.IntegrityError) for one in errors) == 1
    assert sum(one is None for one in errors) == 3
    database.close()
    assert keys(path) == {"0", "1", "2"}


def test_no_cursor_of_the_writer_leaves_its_thread(path: Path) -> None:
    database = Database(path)
    assert database.write(put("a")) is None  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError) as caught:
        database.write(put("a"))  # type: ignore[arg-type]
    assert caught.value.__traceback__ is not None
    frames = caught.traceback
    assert not any(
        isinstance(value, sqlite3.Cursor)
        for frame in frames
        for value in frame.frame.f_locals.values()
    )
    database.close()


def test_a_full_disk_saves_nothing_and_is_told(path: Path) -> None:
    database = Database(path)
    database.write(put("before"))  # type: ignore[arg-type]
    # SQLite's own limit, which ends in the same error as a full disk.
    database.write(lambda connection: connection.execute("PRAGMA max_page_count = 40"))
    with pytest.raises(RefusedError, match="disk is full") as caught:
        database.write(put("large", "x" * 400_000))  # type: ignore[arg-type]
    assert caught.value.status == 507
    database.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000"))
    database.write(put("after"))  # type: ignore[arg-type]
    database.close()
    assert keys(path) == {"before", "after"}


def test_another_program_that_writes_is_waited_for_and_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.label.db.BUSY", 50)
    database = Database(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RefusedError, match="another program") as caught:
        database.write(put("a"))  # type: ignore[arg-type]
    assert caught.value.status == 503
    assert database.reading.execute("SELECT count(*) FROM settings").fetchone()[0] == 0
    other.execute("ROLLBACK")
    other.close()
    database.write(put("a"))  # type: ignore[arg-type]
    database.close()
    assert keys(path) == {"a"}


def test_a_change_after_the_end_is_refused(path: Path) -> None:
    # A picture that is decoded while the server stops is noted as damaged after that.
    database = Database(path)
    database.write(put("before"))  # type: ignore[arg-type]
    database.close()
    with pytest.raises(RefusedError, match="stopping") as caught:
        database.write(put("after"))  # type: ignore[arg-type]
    assert caught.value.status == 503
    assert keys(path) == {"before"}


def test_a_second_server_is_refused(path: Path) -> None:
    with serving(path):
        with pytest.raises(InputError, match="another preceptor label serves"), serving(path):
            pass
        assert keys(path) == set()  # an export is possible meanwhile
    with serving(path):
        pass


def test_a_folder_that_cannot_be_written_is_told_with_a_remedy() -> None:
    path = Path("/proc/label.sqlite")  # where not even root makes a file
    if not path.parent.is_dir():
        pytest.skip("there is no /proc")
    told = r"^/proc/label.sqlite: .* its folder cannot be written; .* --database$"
    with pytest.raises(InputError, match=told), serving(path):
        pass


def test_another_format_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    for readonly in (True, False):
        with pytest.raises(InputError, match="another version of preceptor"):
            connect(path, readonly=readonly)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be read as one" * 9)
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE a (b)")
    other.close()
    reasons = {"text.sqlite": "no SQLite database", "other.sqlite": "no database of preceptor"}
    for name, reason in reasons.items():
        before = (tmp_path / name).read_bytes()
        with pytest.raises(InputError, match=reason):
            connect(tmp_path / name, create=True)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(InputError, match="no such database"):
        connect(tmp_path / "gone.sqlite")
    with pytest.raises(InputError, match="there is no folder"):
        connect(tmp_path / "gone" / "a.sqlite", create=True)
    with pytest.raises(InputError, match="it is a folder; name the file"):
        connect(tmp_path, create=True)


def test_a_database_on_a_full_disk_names_it_and_what_to_do(path: Path) -> None:
    """Reading alone needs a file beside the database, too."""
    Database(path).close()
    for readonly in (True, False):
        with (
            files_up_to(1000),
            pytest.raises(RunFailedError, match=r"the disk is full.*free some space") as caught,
        ):
            connect(path, readonly=readonly)
        assert str(caught.value).startswith(f"{path}: ")
    with (
        files_up_to(100),
        pytest.raises(RunFailedError, match=r"lock: the disk is full.*free some space"),
        serving(path),
    ):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA max_page_count = 40")
    connection.execute("CREATE TABLE more (a)")
    with (
        pytest.raises(RunFailedError, match=r"the disk is full.*free some space"),
        told_errors(path),
    ):
        connection.execute("INSERT INTO more VALUES (?)", ("x" * 400_000,))
    connection.close()


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0
