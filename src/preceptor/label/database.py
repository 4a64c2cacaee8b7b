"""SQLite file of marks: opening, reading connections, and one writer.

All changes are made by one thread. Changes that wait at the same time are committed together, so
that twenty people need few flushes of the disk; each is a savepoint, so that one that is refused
leaves the others alone. A change has returned when it is on the disk.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from preceptor.errors import InputError, PreceptorError, RunFailedError
from preceptor.label.schema import APPLICATION, FORMAT, SCHEMA
from preceptor.web.refusal import RefusedError

T = TypeVar("T")
Connection = sqlite3.Connection

BUSY = 5000
"""Milliseconds to wait for another process that writes."""
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DISK_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_FOLDER_CODES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_TOGETHER = 64  # changes of one commit at most


def connect(path: Path, *, create: bool = False, readonly: bool = False) -> Connection:
    """Open a database of marks.

    Args:
        path: SQLite file.
        create: Whether to create it if it does not exist.
        readonly: Whether nothing is changed.

    Raises:
        InputError: It does not exist, is another kind of file, or has another format.
        RunFailedError: The disk is full.
    """
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
            return _opened(path, readonly)
        except sqlite3.OperationalError as error:
            log = path.with_name(f"{path.name}-wal")
            if not readonly or _code(error) not in _FOLDER_CODES or log.exists():
                raise
        # In a folder that cannot be written, no file can be made beside it; without a log, none is
        # needed to read it.
        return _opened(path, readonly, "?immutable=1")


def _opened(path: Path, readonly: bool, query: str = "") -> Connection:
    place = path.absolute().as_uri() + query
    connection = sqlite3.connect(place, uri=True, isolation_level=None, timeout=BUSY / 1000)
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
    """Context in which an error of the database is told in one line.

    Args:
        path: SQLite file.
        readonly: Whether it is only read.

    Raises:
        InputError: It is held by another program, damaged, or no database.
        RunFailedError: The disk is full, or has an error.
    """
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
    """Context in which no second server uses a database.

    The lock is SQLite's own on an empty file beside it, which the system releases if the process
    dies.

    Raises:
        InputError: Another server has it.
        RunFailedError: The disk is full.
    """
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
    """Connections of a server.

    Args:
        path: SQLite file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()  # no change is put behind the end of the queue
        self._writing = connect_thread_free(path)
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
        """Carry out a change, and wait until it is on the disk.

        Args:
            change: Function of a connection within a transaction.

        Raises:
            RefusedError: The change was refused, the disk is full (507), or another process holds
                the database or the server is stopping (503).
        """
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


def connect_thread_free(path: Path) -> Connection:
    """Writing connection that may be handed to another thread."""
    connect(path).close()  # checks, version
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=BUSY / 1000, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = 1")
    return connection


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
