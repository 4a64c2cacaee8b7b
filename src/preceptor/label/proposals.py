"""Proposals: masks that a Teacher suggests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from preceptor.label.clock import now
from preceptor.label.database import Connection
from preceptor.label.runs import to_text
from preceptor.label.settings import LabelSettings


@dataclass(frozen=True)
class Proposal:
    """Proposed mask of an image, within its bounding box.

    An empty one has no width and height: the Teacher has looked at the image and found nothing.

    Args:
        image: Number of the image.
        x, y, w, h: Rectangle in pixels of the image.
        runs: Bits of the rectangle, see `runs`.
        score: Score of the Teacher, or None.
    """

    image: int
    x: int
    y: int
    w: int
    h: int
    runs: bytes
    score: float | None = None


def add_teacher(
    connection: Connection,
    folder: str,
    images: int,
    agreement: float | None = None,
    *,
    event: int = 0,
) -> int:
    """Store a Teacher, within a transaction.

    Args:
        connection: Connection.
        folder: Its folder.
        images: Number of marked images that it was trained with.
        agreement: Agreement with people, or None.
        event: Number of the latest event before its answers were read; 0 = none.

    Returns:
        Its number.
    """
    number = connection.execute(
        "INSERT INTO teachers (folder, made, images, agreement, event) VALUES (?, ?, ?, ?, ?)",
        (folder, now(), images, agreement, event),
    ).lastrowid
    assert number is not None
    return number


def newest_teacher(connection: Connection) -> dict[str, Any] | None:
    """Teacher that was stored last, as JSON; without its folder."""
    row = connection.execute(
        "SELECT made, images, agreement FROM teachers ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else dict(row)


def write_proposals(connection: Connection, teacher: int, rows: Iterable[Proposal]) -> None:
    """Store proposals of a Teacher in place of its earlier ones, within a transaction.

    Proposals that strokes or answers refer to keep their numbers.
    """
    connection.executemany(
        "INSERT INTO proposals (image, teacher, x, y, w, h, runs, score) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (image, teacher) DO UPDATE SET "
        "x = excluded.x, y = excluded.y, w = excluded.w, h = excluded.h, runs = excluded.runs, "
        "score = excluded.score",
        [(one.image, teacher, one.x, one.y, one.w, one.h, one.runs, one.score) for one in rows],
    )


def newest_proposal(
    connection: Connection, image: int, least_overlap: float
) -> dict[str, Any] | None:
    """Proposal for an image of the newest Teacher that has looked at it and overlaps people's marks
    enough.

    Args:
        connection: Connection.
        image: Number of the image.
        least_overlap: Least overlap; a Teacher whose overlap is not known is not refused.

    Returns:
        Proposal with the overlap (`agreement`) and number of `images` of its Teacher, as JSON; None
        if it has found nothing, or there is no such Teacher.
    """
    row = connection.execute(
        "SELECT proposals.id, x, y, w, h, runs, teacher, score, images, agreement FROM proposals "
        "JOIN teachers ON teachers.id = teacher WHERE image = ? "
        "AND (agreement IS NULL OR agreement >= ?) ORDER BY teacher DESC LIMIT 1",
        (image, least_overlap),
    ).fetchone()
    if row is None or not row["w"]:
        return None
    return dict(row) | {"runs": to_text(row["runs"])}


def proposal_for(
    connection: Connection, image: int, person: int, settings: LabelSettings
) -> dict[str, Any] | None:
    """Proposal that a person is shown now, or None.

    With `after`, a person must have marked something first. The Teacher must overlap people's marks
    by the `least_overlap` of the settings. Images of val and test splits have
    proposals only if the settings say so.
    """
    if settings.proposals == "never":
        return None
    row = connection.execute("SELECT split FROM images WHERE id = ?", (image,)).fetchone()
    if row is None:
        return None
    if is_evaluation(row["split"]) and not settings.proposals_on_evaluation:
        return None
    if settings.proposals == "after":
        own = connection.execute(
            "SELECT 1 FROM strokes WHERE image = ? AND person = ? AND proposal IS NULL LIMIT 1",
            (image, person),
        ).fetchone()
        if own is None:
            return None
    return newest_proposal(connection, image, settings.least_overlap)


def is_evaluation(split: str) -> bool:
    """Whether a split is for validation or test.

    Example:
        >>> [is_evaluation(split) for split in ("train", "", "val", "test-unseen")]
        [False, False, True, True]
    """
    return split.split("-")[0] in ("val", "test")
