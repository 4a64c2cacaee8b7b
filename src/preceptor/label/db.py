"""SQLite file of marks: tables, opening, one writer, and its settings.

All changes are made by one thread. Changes that wait at the same time are committed together, so
that twenty people need few flushes of the disk; each is a savepoint, so that one that is refused
leaves the others alone. A change has returned when it is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

from preceptor.deploy.http import RefusedError
from preceptor.errors import InputError, PreceptorError, RunFailedError


def now() -> str:
    """Present time."""
    return in_utc(datetime.now(UTC))


def in_utc(time: datetime) -> str:
    """Time with a zone as text."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


APPLICATION = 0x50524C42
"""`application_id` of the SQLite file."""

FORMAT = 6
"""`user_version` of the file; other formats are refused."""

SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,           -- from the folder of the manifest, or absolute
    label TEXT NOT NULL DEFAULT '',
    split TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL DEFAULT '',
    width INTEGER, height INTEGER,       -- upright; NULL until the header is read
    problem TEXT,                        -- why the image cannot be shown
    looked_at TEXT,                      -- version of the file when it was measured last
    position INTEGER NOT NULL,           -- in the order of the queue
    overlap INTEGER NOT NULL DEFAULT 0,  -- whether several people mark it
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
    key_hash TEXT,
    lead INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL
);

CREATE TABLE teachers (
    id INTEGER PRIMARY KEY,
    folder TEXT NOT NULL,
    made TEXT NOT NULL,
    images INTEGER NOT NULL,             -- images with marks that it was trained with
    agreement REAL,                      -- with people, on images that are not its own
    event INTEGER NOT NULL DEFAULT 0     -- the latest before its answers were read
);

CREATE TABLE proposals (
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images,
    teacher INTEGER NOT NULL REFERENCES teachers,
    x INTEGER NOT NULL, y INTEGER NOT NULL, w INTEGER NOT NULL, h INTEGER NOT NULL,
    runs BLOB NOT NULL,
    score REAL,
    UNIQUE (image, teacher)
);

CREATE TABLE strokes (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    number INTEGER NOT NULL,
    tool TEXT NOT NULL,
    class TEXT NOT NULL,
    erase INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, w INTEGER NOT NULL, h INTEGER NOT NULL,
    runs BLOB NOT NULL,
    started TEXT NOT NULL,
    seconds REAL NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0,   -- 1: can be redone; 2: undone for good
    proposal INTEGER REFERENCES proposals,
    saved TEXT NOT NULL,
    version TEXT,                        -- of the file, as in images.looked_at; NULL: not known
    UNIQUE (image, person, number)
);
CREATE INDEX strokes_person ON strokes (person, image);

CREATE TABLE answers (
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    state TEXT NOT NULL CHECK (state IN ('marked', 'nothing', 'cannot_judge', 'skipped')),
    label TEXT,
    certainty INTEGER CHECK (certainty BETWEEN 1 AND 3),
    at TEXT NOT NULL,
    seconds REAL NOT NULL,
    proposal INTEGER REFERENCES proposals,
    proposals_mode TEXT NOT NULL,
    event INTEGER NOT NULL,              -- orders answers: a clock may be set back
    version TEXT,
    PRIMARY KEY (image, person)
) WITHOUT ROWID;
CREATE INDEX answers_person ON answers (person, event);

-- Answers that do not fit the marks; the columns are those of `answers`, in the same order.
CREATE TABLE answers_aside (
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    state TEXT NOT NULL CHECK (state IN ('marked', 'nothing')),
    label TEXT,
    certainty INTEGER CHECK (certainty BETWEEN 1 AND 3),
    at TEXT NOT NULL,
    seconds REAL NOT NULL,
    proposal INTEGER REFERENCES proposals,
    proposals_mode TEXT NOT NULL,
    event INTEGER NOT NULL,
    version TEXT,
    PRIMARY KEY (image, person)
) WITHOUT ROWID;

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    image INTEGER REFERENCES images,
    person INTEGER REFERENCES people,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT
);
CREATE INDEX events_image ON events (image, person, kind);
"""


T = TypeVar("T")
Connection = sqlite3.Connection

BUSY = 5000
"""Milliseconds to wait for another process that writes."""
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DISK_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_FOLDER_CODES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_TOGETHER = 64  # changes of one commit at most


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
        path.touch(mode=0o600)  # it contains the key of the sessions
    with told_errors(path, readonly=readonly):
        try:
            return _opened(path, readonly, any_thread=any_thread)
        except sqlite3.OperationalError as error:
            log = path.with_name(f"{path.name}-wal")
            if not readonly or _code(error) not in _FOLDER_CODES or log.exists():
                raise
        # In a folder that cannot be written, no file can be made beside it; without a log, none is
        # needed to read it.
        return _opened(path, readonly, "?immutable=1")


def _opened(path: Path, readonly: bool, query: str = "", *, any_thread: bool = False) -> Connection:
    place = path.absolute().as_uri() + query
    connection = sqlite3.connect(
        place,
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
def told_errors(path: Path, *, readonly: bool = False) -> Iterator[None]:
    """Context in which an error of the database is told in one line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _told(path, error, readonly) from error


def _code(error: sqlite3.Error) -> int:
    """Primary result code of SQLite; -1 of an error that is none of SQLite's own."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code


def _told(path: Path, error: sqlite3.Error, readonly: bool = False) -> PreceptorError:
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
    if code in _FOLDER_CODES and readonly:
        return InputError(
            f"{path}: it cannot be read ({error}): {path.name}-wal beside it has changes, and "
            "its folder cannot be written; copy both to another folder"
        )
    if code in _FOLDER_CODES:
        return InputError(
            f"{path}: it cannot be opened ({error}), perhaps since its folder cannot be written; "
            "name a file in another folder with --database"
        )
    if code in _DISK_CODES:  # also for reading alone, which needs a file beside it
        return RunFailedError(
            f"{path}: the disk is full or cannot be written ({error}); free some space, and repeat "
            "the command"
        )
    return InputError(f"{path}: it cannot be opened ({error})")


@contextlib.contextmanager
def serving(path: Path) -> Iterator[None]:
    """Context in which no second server uses a database."""
    beside = path.with_name(f".{path.name}.lock")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; create it first")
    lock: Connection | None = None
    try:
        lock = sqlite3.connect(beside, isolation_level=None, timeout=0)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if lock is not None:
            lock.close()
        if _code(error) in _FOLDER_CODES:
            raise _told(path, error) from error
        if _code(error) not in _BUSY_CODES:
            raise _told(beside, error) from error
        raise InputError(
            f"{path}: another preceptor label serves this database; open its page, or end it first"
        ) from error
    try:
        yield
    finally:
        lock.close()


class Database:
    """Connections of a server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()  # no change is put behind the end of the queue
        self._writing = connect(path, any_thread=True)
        self._thread = threading.Thread(target=self._write, name="label-writer", daemon=True)
        self._thread.start()

    @property
    def reading(self) -> Connection:
        """Connection of this thread, for reading alone."""
        found: Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = connect(self.path, readonly=True)
            self._own.connection = found
        return found

    def write(self, change: Callable[[Connection], T]) -> T:
        """Carry out a change, and wait until it is on the disk."""
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise RefusedError(
                    503, "the server is stopping; nothing was saved, try again when it runs again"
                )
            self._jobs.put(_Job(change, future))
        return future.result()

    def close(self) -> None:
        """Carry out what waits, and close the writing connection."""
        with self._closing:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._writing.close()

    def _write(self) -> None:
        while True:
            job = self._jobs.get()
            batch: list[_Job] = []
            while job is not None:
                batch.append(job)
                if len(batch) >= _TOGETHER:
                    break
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
            if batch:
                _commit(self._writing, batch)
            if job is None:
                return


class _Job:
    """One change, and the future of its result."""

    def __init__(self, change: Callable[[Connection], Any], future: Future[Any]) -> None:
        self.change, self.future = change, future
        self.result: Any = None
        self.error: BaseException | None = None


def _commit(connection: Connection, batch: list[_Job]) -> None:
    """Carry out changes in one transaction, and tell their results after it is on the disk."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in batch:
            _carry_out(connection, job)
        connection.execute("COMMIT")
    except BaseException as error:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        told = (refusal_of(error) if isinstance(error, sqlite3.Error) else None) or error
        for job in batch:
            job.error = told
    for job in batch:
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def _carry_out(connection: Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT change")
    try:
        result = job.change(connection)
        # A cursor that ends in another thread would reset a statement that this one is using.
        job.result = None if isinstance(result, sqlite3.Cursor) else result
    except sqlite3.Error as error:
        if refusal_of(error) is not None:  # of the database as a whole: all changes wait for it
            raise
        job.error = error
    except BaseException as error:
        job.error = error
    if job.error is not None:
        traceback.clear_frames(job.error.__traceback__)  # which may hold cursors
        connection.execute("ROLLBACK TO change")
    connection.execute("RELEASE change")


def refusal_of(error: sqlite3.Error) -> RefusedError | None:
    """Answer to an error of the file or the disk; None of errors in statements."""
    if not isinstance(error, sqlite3.OperationalError) and type(error) is not sqlite3.DatabaseError:
        return None
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return RefusedError(507, "the disk is full: free some space; nothing was saved")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
        return RefusedError(
            507, f"the disk is full or cannot be written ({error}); nothing was saved"
        )
    if code in _BUSY_CODES:
        return RefusedError(503, "another program holds the database; nothing was saved, try again")
    return RefusedError(507, f"the database cannot be written ({error}); nothing was saved")


Order = Literal["random", "source"]
ProposalsMode = Literal["first", "after", "never"]


@dataclass(frozen=True)
class LabelSettings:
    """Settings that every start may change; they are kept in the database."""

    classes: tuple[str, ...] = ("evidence",)  # classes of marks
    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()  # splits whose images are to be marked; empty = all
    order: Order = "random"  # order of the queue
    seed: int = 0  # random seed of the order and of the overlap
    overlap: int = 1  # number of people who mark the images of the overlap
    overlap_share: float = 0.0  # share of the images in the overlap
    proposals: ProposalsMode = "after"  # when a Teacher's proposal is shown
    proposals_on_evaluation: bool = False  # whether also on images of val and test splits
    least_overlap: float = 0.6  # below, a proposal costs more time than it saves


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
    found: dict[str, Any] = {}
    for field in fields(LabelSettings):
        value = read_setting(connection, field.name)
        if value is not None:
            found[field.name] = tuple(value) if isinstance(value, list) else value
    return LabelSettings(**found)


def write_settings(connection: Connection, settings: LabelSettings) -> None:
    """Store all settings."""
    for key, value in asdict(settings).items():
        write_setting(connection, key, value)


def session_secret(connection: Connection) -> bytes:
    """Key of the sessions and links; made once."""
    found = read_setting(connection, "secret")
    if found is None:
        found = secrets.token_hex(32)
        write_setting(connection, "secret", found)
    return bytes.fromhex(found)
