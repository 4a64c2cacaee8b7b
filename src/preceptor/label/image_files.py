"""Files of images: their sizes, why one cannot be shown, and whether one was replaced by another.

Marks are bitmaps in pixels of the image that was marked. A file of another size is another image:
it is not shown, and its marks are kept and left out of exports until the old file is back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preceptor.label.database import Connection
from preceptor.label.pictures import PictureError, measure, version_or_none


@dataclass(frozen=True)
class FileState:
    """State of the file of an image.

    Args:
        width, height: Size in pixels of the image that was marked, or of the file if nothing is
            marked yet; None = unknown.
        problem: Why the image cannot be shown; None = it can, as far as is known.
        looked_at: Version of the file that was looked at; None = there was none.
    """

    width: int | None
    height: int | None
    problem: str | None
    looked_at: str | None


def stored_state(row: sqlite3.Row) -> FileState:
    """State of an image as it is in the database."""
    return FileState(row["width"], row["height"], row["problem"], row["looked_at"])


def file_state(connection: Connection, row: sqlite3.Row, path: Path) -> FileState:
    """State of the file of an image now; its header is read only if the file has changed.

    Args:
        connection: Connection.
        row: Row of the image.
        path: Its file.
    """
    version = version_or_none(path)
    known = row["width"] is not None
    if version == row["looked_at"] and (known or row["problem"] is not None):
        return stored_state(row)
    try:
        size = measure(path)
    except PictureError as error:
        return FileState(row["width"], row["height"], str(error), version)
    if not known or size == (row["width"], row["height"]) or not _has_work(connection, row["id"]):
        return FileState(*size, None, version)
    problem = (
        f"the file has {size[0]} × {size[1]} pixels, and its marks were made on "
        f"{row['width']} × {row['height']}; they are kept, put the old file back"
    )
    return FileState(row["width"], row["height"], problem, version)


def is_replaced(row: sqlite3.Row, path: Path) -> bool:
    """Whether the file of an image has another size than the image that was marked.

    Args:
        row: Row of the image.
        path: Its file.
    """
    if row["width"] is None:
        return False
    if row["problem"] is None and version_or_none(path) == row["looked_at"]:
        return False
    try:
        return measure(path) != (row["width"], row["height"])
    except PictureError:
        return False


def changed_states(connection: Connection, root: Path) -> Iterator[tuple[sqlite3.Row, FileState]]:
    """Images with work or a problem whose state is not the stored one, with their state.

    Args:
        connection: Connection.
        root: Folder that paths start from.
    """
    rows = connection.execute(
        "SELECT * FROM images WHERE problem IS NOT NULL OR honeypot = 1 "
        "OR id IN (SELECT image FROM strokes UNION SELECT image FROM answers)"
    ).fetchall()
    for row in rows:
        state = file_state(connection, row, root / row["path"])
        if state != stored_state(row):
            yield row, state


def write_states(connection: Connection, states: list[tuple[int, FileState]]) -> None:
    """Store states of images by their numbers, within a transaction.

    Proposals for an image whose size changes are removed.
    """
    connection.executemany(
        "DELETE FROM proposals WHERE image = ? AND EXISTS (SELECT 1 FROM images "
        "WHERE images.id = proposals.image AND (width, height) != (?, ?))",
        [(image, one.width, one.height) for image, one in states if one.width is not None],
    )
    connection.executemany(
        "UPDATE images SET width = ?, height = ?, problem = ?, looked_at = ? WHERE id = ?",
        [(one.width, one.height, one.problem, one.looked_at, image) for image, one in states],
    )


def write_problem(connection: Connection, image: int, path: Path, problem: str) -> None:
    """Store why an image cannot be shown, within a transaction.

    Args:
        connection: Connection.
        image: Number of the image.
        path: Its file.
        problem: Reason, without the path.
    """
    connection.execute(
        "UPDATE images SET problem = ?, looked_at = ? WHERE id = ?",
        (problem, version_or_none(path), image),
    )


def look_again(connection: Connection, root: Path) -> None:
    """Store the present state of images with work or a problem, within a transaction."""
    write_states(connection, [(row["id"], one) for row, one in changed_states(connection, root)])


def _has_work(connection: Connection, image: int) -> bool:
    """Whether an image has strokes or answers, or is a honeypot."""
    row = connection.execute(
        "SELECT honeypot OR EXISTS (SELECT 1 FROM strokes WHERE image = :image) "
        "OR EXISTS (SELECT 1 FROM answers WHERE image = :image) FROM images WHERE id = :image",
        {"image": image},
    ).fetchone()
    return bool(row[0])
