"""The SQLite file, other programs, a full disk; the run-length code of the marks in it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from preceptor.deploy.http import RefusedError, conflict
from preceptor.errors import InputError, RunFailedError
from preceptor.label.db import FORMAT, Connection, Database, connect, told_errors
from preceptor.label.marks import (
    bounding_runs,
    decode_runs,
    encode_runs,
    from_text,
    run_lengths,
    to_text,
)
from tests.small_files import files_up_to


def put(key: str, value: str = "1") -> Callable[[Connection], object]:
    return lambda connection: connection.execute("INSERT INTO settings VALUES (?, ?)", (key, value))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a.label.sqlite"
    connect(file, create=True).close()
    return file


def keys(path: Path) -> set[str]:
    with closing(connect(path, readonly=True)) as connection:
        return {row[0] for row in connection.execute("SELECT key FROM settings")}


def test_changes_of_many_threads_are_whole_or_not_there(path: Path) -> None:
    database = Database(path)

    def refuse(connection: Connection) -> None:
        connection.execute("INSERT INTO settings VALUES ('refused', '1')")
        raise conflict("no")

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(database.write, put(str(at % 30))) for at in range(31)]
        refused = pool.submit(database.write, refuse)
        errors = [job.exception() for job in jobs]
    assert isinstance(refused.exception(), RefusedError)
    # One of the two with the same key is refused by SQLite.
    assert sum(isinstance(one, sqlite3.IntegrityError) for one in errors) == 1
    assert sum(one is None for one in errors) == 30
    database.close()
    assert keys(path) == {str(at) for at in range(30)}
    # A picture that is decoded while the server stops is noted as damaged after that.
    with pytest.raises(RefusedError, match="stopping") as caught:
        database.write(put("after"))
    assert caught.value.status == 503


def test_another_program_that_writes_is_waited_for_and_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.label.db.BUSY", 50)
    database = Database(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RefusedError, match="another program") as caught:
        database.write(put("a"))
    assert caught.value.status == 503
    assert database.reading.execute("SELECT count(*) FROM settings").fetchone()[0] == 0
    other.execute("ROLLBACK")
    other.close()
    database.write(put("a"))
    database.close()
    assert keys(path) == {"a"}


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


CASES: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("runs.json").read_text(encoding="utf-8")
)
masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30))


def test_the_code_of_known_cases() -> None:
    for case in CASES["valid"]:
        bits = np.array([[letter == "1" for letter in row] for row in case["rows"]])
        assert to_text(encode_runs(bits)) == case["runs"]
    for case in CASES["long"]:
        lengths, code = case["lengths"], from_text(case["runs"])
        assert run_lengths(code, sum(lengths)).tolist() == lengths
        assert encode_runs(np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)) == code
    for case in CASES["invalid"]:
        with pytest.raises(ValueError, match=r"\w"):
            decode_runs(from_text(case["runs"]), case["size"])


@given(masks)
def test_the_bounding_box_is_tight(mask: np.ndarray) -> None:
    found = bounding_runs(mask)
    if found is None:
        assert not mask.any()
        return
    x, y, w, h, code = found
    again = np.zeros_like(mask)
    again[y : y + h, x : x + w] = decode_runs(code, w * h).reshape(h, w)
    assert (again == mask).all()
    assert again[[y, y + h - 1]].any(axis=1).all()
    assert again[:, [x, x + w - 1]].any(axis=0).all()
