"""Handing out of images: the next ones of a person, whose files are there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from preceptor.label.calls import Call, Labeling
from preceptor.label.database import Connection
from preceptor.label.image_files import (
    FileState,
    are_reachable,
    file_state,
    stored_state,
    write_problem,
    write_states,
)
from preceptor.label.pictures import PictureError, version_or_none
from preceptor.label.queue import open_images
from preceptor.web.refusal import RefusedError

UNREACHABLE = (
    "the images cannot be reached: none of the files that were looked for is there; connect their "
    "drive, or put them back"
)
_PASSED = 256  # images among which missing ones are looked for at a time


def hand_out(call: Call, count: int, without: int | None = None) -> list[int]:
    """Next open images, kept for the person; those that cannot be shown are passed over.

    Args:
        call: Request of the person.
        count: Largest number of images.
        without: Image that is left out.

    Raises:
        RefusedError: No image can be reached (503).
    """
    labeling, person, reading = call.labeling, call.someone, call.reading
    while True:
        with labeling.handing_out:
            found = open_images(reading, person.id, labeling.claims, count, without)
            labeling.claims.take(found, person.id)
        hidden = [row["id"] for row in sized(labeling, reading, found) if row["problem"]]
        if not hidden and (len(found) == count or not _look_again(labeling, reading)):
            return found
        for image in hidden:
            labeling.claims.drop(image, person.id)
        if hidden:
            _pass_over(
                labeling,
                reading,
                open_images(reading, person.id, labeling.claims, _PASSED, without),
            )


def sized(
    labeling: Labeling,
    connection: Connection,
    images: Iterable[int],
    *,
    need_files: bool = True,
) -> list[sqlite3.Row]:
    """Rows of images, whose sizes are read from the files if these are new or have changed.

    While no image can be reached, nothing is stored of missing files.

    Args:
        labeling: State of the server.
        connection: Connection for reading.
        images: Numbers of the images.
        need_files: Whether this is an error then.

    Raises:
        RefusedError: No image can be reached (503).
    """
    numbers = list(images)
    rows = _rows(connection, numbers)
    changed = _changed(labeling, connection, rows)
    if any(state.looked_at is None for _, state in changed) and not are_reachable(
        connection, labeling.source.root
    ):
        if need_files:
            raise RefusedError(503, UNREACHABLE)
        changed = [(image, state) for image, state in changed if state.looked_at is not None]
    if not changed:
        return rows
    labeling.database.write(lambda writing: write_states(writing, changed))
    return _rows(connection, numbers)


def path_of(labeling: Labeling, row: sqlite3.Row) -> Path:
    """File of an image; its path is from the manifest, never from a request."""
    return labeling.source.root / str(row["path"])


def note_problem(labeling: Labeling, row: sqlite3.Row, problem: PictureError) -> None:
    """Store why an image cannot be shown."""
    path = path_of(labeling, row)
    labeling.database.write(lambda connection: write_problem(connection, row["id"], path, problem))


def _rows(connection: Connection, images: list[int]) -> list[sqlite3.Row]:
    marks = ", ".join("?" * len(images))
    rows = connection.execute(f"SELECT * FROM images WHERE id IN ({marks})", images)
    found = {row["id"]: row for row in rows}
    return [found[image] for image in images]


def _changed(
    labeling: Labeling, connection: Connection, rows: Iterable[sqlite3.Row]
) -> list[tuple[int, FileState]]:
    """States of images that are not the stored ones."""
    states = ((row, file_state(connection, row, path_of(labeling, row))) for row in rows)
    return [(row["id"], state) for row, state in states if state != stored_state(row)]


def _pass_over(labeling: Labeling, connection: Connection, images: list[int]) -> None:
    """Store which of some images are missing, so that not each of them is handed out."""
    missing = [
        row for row in _rows(connection, images) if version_or_none(path_of(labeling, row)) is None
    ]
    changed = _changed(labeling, connection, missing)
    if changed:
        labeling.database.write(lambda writing: write_states(writing, changed))


def _look_again(labeling: Labeling, connection: Connection) -> bool:
    """Look again at images whose file was missing or could not be read, from time to time.

    Returns:
        Whether one of them can be shown now.
    """
    if not labeling.looking_again.is_over():
        return False
    rows = connection.execute(
        "SELECT * FROM images WHERE problem IS NOT NULL AND looked_at IS NULL"
    )
    changed = _changed(labeling, connection, rows.fetchall())
    if changed:
        labeling.database.write(lambda writing: write_states(writing, changed))
    return any(state.problem is None for _, state in changed)
