"""Files of images: their sizes, why one cannot be shown, and whether one was replaced by another.

Marks are bitmaps in pixels of the image that was marked. A file of another size is another image:
it is not shown, and its marks are kept and left out of exports until the old file is back.

What is damaged is not decoded again before the file changes; what could not be read is.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from preceptor.label.answers import has_work, withdraw_others
from preceptor.label.database import Connection
from preceptor.label.pictures import PictureError, measure, version_or_none

_ASKED = 64  # files that are looked for before all are said to be away


@dataclass(frozen=True)
class FileState:
    """State of the file of an image.

    Args:
        width, height: Size in pixels of the image that was marked, or of the file if nothing is
            marked yet; None = unknown.
        problem: Why the image cannot be shown; None = it can, as far as is known.
        looked_at: Version of the file that was looked at; None = there was none, or it could not
            be read.
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
    stored = stored_state(row)
    known = row["width"] is not None
    is_same = version is not None and version == row["looked_at"]
    if is_same and known and row["problem"] is None:
        return stored
    try:
        size = measure(path)
    except PictureError as error:
        looked_at = None if error.is_passing else version
        return FileState(row["width"], row["height"], str(error), looked_at)
    is_size = size == (row["width"], row["height"])
    if is_same and is_size:
        return stored  # its header is sound, and its pixels are damaged
    if not known or is_size or not has_work(connection, row["id"]):
        return FileState(*size, None, version)
    problem = (
        f"the file has {size[0]} × {size[1]} pixels, and its marks were made on "
        f"{row['width']} × {row['height']}; they are kept, put the old file back"
    )
    return FileState(row["width"], row["height"], problem, version)


def are_reachable(connection: Connection, root: Path) -> bool:
    """Whether any of some images of the manifest has a file; a whole drive may be away.

    Args:
        connection: Connection.
        root: Folder that paths start from.
    """
    images = [row[0] for row in connection.execute("SELECT id FROM images WHERE listed = 1")]
    for image in random.sample(images, min(_ASKED, len(images))):
        (path,) = connection.execute("SELECT path FROM images WHERE id = ?", (image,)).fetchone()
        if (root / path).is_file():
            return True
    return False


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


def has_other_file(path: Path, answers: Iterable[sqlite3.Row]) -> bool:
    """Whether the file of an image is not the one that some answer is about, as far as is known.

    Args:
        path: Its file.
        answers: Answers to it.
    """
    version = version_or_none(path)
    about = {one["version"] for one in answers} - {None}
    return version is not None and bool(about - {version})


def answered_with_other_file(connection: Connection, root: Path) -> Iterator[int]:
    """Numbers of images of which `has_other_file` is true, without those of another size.

    Args:
        connection: Connection.
        root: Folder that paths start from.
    """
    rows = connection.execute(
        "SELECT * FROM answers WHERE state != 'skipped' AND version IS NOT NULL ORDER BY image"
    )
    for image, answers in groupby(rows.fetchall(), key=lambda row: row["image"]):
        row = connection.execute("SELECT * FROM images WHERE id = ?", (image,)).fetchone()
        path = root / row["path"]
        if has_other_file(path, answers) and not is_replaced(row, path):
            yield image


def changed_states(connection: Connection, root: Path) -> Iterator[tuple[sqlite3.Row, FileState]]:
    """Images with work or a problem whose state is not the stored one, with their state.

    Args:
        connection: Connection.
        root: Folder that paths start from.
    """
    rows = connection.execute(
        "SELECT * FROM images WHERE problem IS NOT NULL "
        "OR id IN (SELECT image FROM strokes UNION SELECT image FROM answers)"
    ).fetchall()
    for row in rows:
        state = file_state(connection, row, root / row["path"])
        if state != stored_state(row):
            yield row, state


def write_states(connection: Connection, states: list[tuple[int, FileState]]) -> None:
    """Store states of images by their numbers, within a transaction.

    Of an image whose size changes, proposals are removed and answers without marks are withdrawn;
    if it was marked since it was looked at, its state stays as it is.
    """
    for image, one in states:
        size = connection.execute(
            "SELECT width, height FROM images WHERE id = ?", (image,)
        ).fetchone()
        if size["width"] is not None and tuple(size) != (one.width, one.height):
            if has_work(connection, image):
                continue
            withdraw_others(connection, image)
            connection.execute("DELETE FROM proposals WHERE image = ?", (image,))
        connection.execute(
            "UPDATE images SET width = ?, height = ?, problem = ?, looked_at = ? WHERE id = ?",
            (one.width, one.height, one.problem, one.looked_at, image),
        )


def write_problem(connection: Connection, image: int, path: Path, problem: PictureError) -> None:
    """Store why an image cannot be shown, within a transaction.

    Args:
        connection: Connection.
        image: Number of the image.
        path: Its file.
        problem: Reason.
    """
    try:
        size: tuple[int | None, int | None] = measure(path)
    except PictureError:
        size = None, None
    connection.execute(
        "UPDATE images SET problem = ?, looked_at = ?, width = coalesce(width, ?), "
        "height = coalesce(height, ?) WHERE id = ?",
        (str(problem), None if problem.is_passing else version_or_none(path), *size, image),
    )


def look_again(connection: Connection, root: Path) -> None:
    """Store the present state of images with work or a problem, within a transaction.

    While no image can be reached, nothing is stored of missing files.
    """
    changed = [(row["id"], one) for row, one in changed_states(connection, root)]
    if any(one.looked_at is None for _, one in changed) and not are_reachable(connection, root):
        changed = [(image, one) for image, one in changed if one.looked_at is not None]
    write_states(connection, changed)
