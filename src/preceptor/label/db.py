"""SQLite file of marks: tables, opening, changes of a server, and its settings."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from preceptor.deploy.http import RefusedError
from preceptor.errors import HeldError, InputError, PreceptorError, RunFailedError
from preceptor.utils.files import failed_write, locked, replacing


def now() -> str:
    """Present time."""
    return in_utc(datetime.now(UTC))


def in_utc(time: datetime) -> str:
    """Time with a zone as text."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


APPLICATION = 0x50524C42  # `application_id` of the SQLite file
FORMAT = 11  # `user_version` of the file; other formats are refused

_ANSWER = """
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    state TEXT NOT NULL CHECK (state IN ('marked', 'nothing', 'cannot_judge')),
    label TEXT,
    at TEXT NOT NULL,
    seconds REAL NOT NULL,
    number INTEGER NOT NULL,             -- orders answers: a clock may be set back
    PRIMARY KEY (image, person)
"""
SCHEMA = f"""
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,           -- from the folder of the manifest, or absolute
    label TEXT NOT NULL DEFAULT '',
    split TEXT NOT NULL DEFAULT '',
    width INTEGER, height INTEGER,       -- upright; NULL until the header is read
    problem TEXT,                        -- why the image cannot be shown
    looked_at TEXT,                      -- version of the file when it was measured last
    position INTEGER NOT NULL,           -- in the order of the queue
    listed INTEGER NOT NULL DEFAULT 1,   -- whether it is in the manifest now
    asked INTEGER NOT NULL DEFAULT 1,    -- whether its split was chosen to be marked
    places INTEGER NOT NULL DEFAULT 1    -- people who are still needed
);
-- The condition of the queue, word for word: open images are counted in the index alone.
CREATE INDEX images_open ON images (position, places)
    WHERE places > 0 AND problem IS NULL AND listed = 1;
-- The condition of the images that are done, word for word: they are counted in the index alone.
CREATE INDEX images_done ON images (places, listed, asked)
    WHERE listed = 1 AND asked = 1;
CREATE INDEX images_problem ON images (id) WHERE problem IS NOT NULL;

CREATE TABLE people (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    created TEXT NOT NULL
);

CREATE TABLE strokes (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    number INTEGER NOT NULL,
    tool TEXT NOT NULL,
    erase INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, w INTEGER NOT NULL, h INTEGER NOT NULL,
    runs BLOB NOT NULL,
    started TEXT NOT NULL,
    seconds REAL NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0,   -- 1: can be redone; 2: undone for good
    saved TEXT NOT NULL,
    UNIQUE (image, person, number)
);
CREATE INDEX strokes_person ON strokes (person, image);

CREATE TABLE answers ({_ANSWER}) WITHOUT ROWID;
CREATE INDEX answers_person ON answers (person, number);

-- Answers that do not fit the marks.
CREATE TABLE answers_aside ({_ANSWER}) WITHOUT ROWID;

"""


T = TypeVar("T")
Connection = sqlite3.Connection

BUSY = 5000  # milliseconds to wait for another process that writes
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DISK_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def connect(
    path: Path, *, create: bool = False, readonly: bool = False, any_thread: bool = False
) -> Connection:
    """Open a database of marks."""
    if path.is_dir():
        raise InputError(f"{path}: it is a folder; name the file of the database")
    if not path.is_file() and not create:
        raise InputError(f"{path}: there is no such database; name that of preceptor label")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; create it first")
    if create and not path.exists():
        path.touch(mode=0o600)
    with told_errors(path):
        # In a folder that cannot be written, no file can be made beside it; without a log, none is
        # needed to read it.
        log = path.with_name(f"{path.name}-wal")
        alone = readonly and not os.access(path.parent, os.W_OK) and not log.exists()
        connection = sqlite3.connect(
            path.absolute().as_uri() + "?immutable=1" * alone,
            uri=True,
            isolation_level=None,
            timeout=BUSY / 1000,
            check_same_thread=not any_thread,
        )
        try:
            _prepare(connection, path, readonly)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: Connection, path: Path, readonly: bool) -> None:
    connection.row_factory = sqlite3.Row
    version = _number(connection, "user_version")
    kind = _number(connection, "application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (tables and kind != APPLICATION) or (not tables and readonly):
        raise InputError(f"{path}: it is no database of preceptor label; name another file")
    if tables and version != FORMAT:
        raise InputError(
            f"{path}: it was written by another version of preceptor (format {version}, this one "
            f"reads {FORMAT}); use that version to export it"
        )
    if readonly:
        connection.execute("PRAGMA query_only = 1")
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if not tables:
        connection.execute("BEGIN IMMEDIATE")
        if not _number(connection, "user_version"):  # nor has another process made them meanwhile
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    connection.execute("PRAGMA foreign_keys = 1")


def _number(connection: Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


@contextlib.contextmanager
def told_errors(path: Path) -> Iterator[None]:
    """Context in which an error of the database is told in one line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _told(path, error) from error


def _code(error: sqlite3.Error) -> int:
    """Primary result code of SQLite; -1 of an error that is none of SQLite's own."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code


def _told(path: Path, error: sqlite3.Error) -> PreceptorError:
    code = _code(error)
    if code in _BUSY_CODES:
        return InputError(
            f"{path}: another program holds the database; end it, and repeat the command"
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return InputError(
            f"{path}: it is no SQLite database, or damaged ({error}); name the database of "
            "preceptor label"
        )
    if code in _DISK_CODES:  # also for reading alone, which needs a file beside it
        return RunFailedError(
            f"{path}: the disk is full or cannot be written ({error}); free some space, and repeat "
            "the command"
        )
    return InputError(
        f"{path}: it cannot be opened ({error}), perhaps since its folder cannot be written; use a "
        "file in another folder"
    )


@contextlib.contextmanager
def serving(path: Path) -> Iterator[None]:
    """Context in which no second server uses a database; the system ends it if the process dies."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; create it first")
    beside = path.with_name(f".{path.name}.lock")
    try:
        beside.touch()
    except OSError as error:
        raise InputError(
            f"{failed_write(error, path)}; name a file in another folder with --database"
        ) from error
    try:
        with locked(beside):
            yield
    except HeldError as error:
        raise InputError(
            f"{path}: another preceptor label serves this database; open its page, or end it first"
        ) from error


class Database:
    """Connections of a server: one for changes, under a lock, and one of each thread that reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        self._lock = threading.Lock()
        self._writing: Connection | None = connect(path, any_thread=True)

    @property
    def reading(self) -> Connection:
        """Connection of this thread, for reading alone."""
        if not hasattr(self._own, "connection"):
            self._own.connection = connect(self.path, readonly=True)
        connection: Connection = self._own.connection
        return connection

    def write(self, change: Callable[[Connection], T]) -> T:
        """Carry out a change in a transaction, which is on the disk when this returns.

        Raises RefusedError if the disk is full (507), another process holds the database, or the
        server is stopping (503).
        """
        with self._lock:
            connection = self._writing
            if connection is None:
                raise RefusedError(
                    503, "the server is stopping; nothing was saved, try again when it runs again"
                )
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = change(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                refusal = refusal_of(error) if isinstance(error, sqlite3.Error) else None
                if refusal is not None:
                    raise refusal from error
                raise
            return result

    def close(self) -> None:
        """Close the writing connection after what is being written."""
        with self._lock:
            if self._writing is not None:
                self._writing.close()
            self._writing = None


def refusal_of(error: sqlite3.Error) -> RefusedError | None:
    """Answer to an error of the file or the disk; None of errors in statements."""
    if not isinstance(error, sqlite3.OperationalError) and type(error) is not sqlite3.DatabaseError:
        return None
    if _code(error) == sqlite3.SQLITE_ERROR:
        return None
    if _code(error) in _BUSY_CODES:
        return RefusedError(503, "another program holds the database; nothing was saved, try again")
    if _code(error) == sqlite3.SQLITE_FULL:
        return RefusedError(507, "the disk is full: free some space; nothing was saved")
    return RefusedError(507, f"the disk is full or cannot be written ({error}); nothing was saved")


@dataclass(frozen=True)
class LabelSettings:
    """Settings that every start may change; they are kept in the database."""

    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()  # splits whose images are to be marked; empty = all
    overlap: int = 1  # number of people who mark each image


def read_setting(connection: Connection, key: str, default: Any = None) -> Any:
    """Value of a setting."""
    row = connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
    return default if row is None else json.loads(row[0])


def write_setting(connection: Connection, key: str, value: Any) -> None:
    """Store a setting."""
    connection.execute(
        "INSERT INTO settings VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, json.dumps(value, ensure_ascii=False)),
    )


def read_settings(connection: Connection) -> LabelSettings:
    """Settings of a database; defaults where nothing was stored."""
    stored = {field.name: read_setting(connection, field.name) for field in fields(LabelSettings)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
        if value is not None
    }
    return LabelSettings(**values)


def session_secret(database: Path) -> bytes:
    """Key of the sessions and the link, in a file beside the database that its owner alone reads.

    Without the file, earlier links and sessions end.
    """
    file = database.with_name(f"{database.name}.key")
    secret = b""
    with contextlib.suppress(OSError, ValueError):
        secret = bytes.fromhex(file.read_text(encoding="ascii"))
        file.chmod(0o600)
    if len(secret) != 32:
        secret = secrets.token_bytes(32)
        with replacing(file) as partial:
            partial.touch(mode=0o600)
            partial.write_text(secret.hex(), encoding="ascii")
    return secret
