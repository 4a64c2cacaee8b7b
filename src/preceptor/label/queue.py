"""Queue: the open images of a person, and those that were answered before.

An image is open for a person who has not answered it while people are still needed for it: answers
of others, and others to whom it is handed out, take its places.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from preceptor.label.claims import Claims
from preceptor.label.database import Connection

_NEEDED = "places > 0 AND problem IS NULL AND listed = 1"
"""Whether people are needed for an image that can be shown."""
_OPEN = (
    f"{_NEEDED} AND NOT EXISTS ("
    "SELECT 1 FROM answers WHERE answers.image = images.id AND answers.person = :person)"
)
_LATER = 2**63 - 1  # than every event


def open_images(
    connection: Connection,
    person: int,
    claims: Claims,
    count: int,
    without: int | None = None,
) -> list[int]:
    """Next open images of a person, the first one to show first.

    Args:
        connection: Connection.
        person: Number of the person.
        claims: Images that are handed out.
        count: Largest number of images.
        without: Image that is left out.
    """
    rows = connection.execute(
        f"SELECT id, places FROM images WHERE {_OPEN} ORDER BY position", {"person": person}
    )
    free = (
        image
        for image, places in rows
        if image != without and places - claims.others(image, person) > 0
    )
    return list(islice(free, count))


def answered_before(
    connection: Connection, person: int, image: int | None, count: int
) -> list[int]:
    """Images that a person answered before an image, the latest first; of an open one, the latest.

    Args:
        connection: Connection.
        person: Number of the person.
        image: Image that is shown.
        count: Largest number of images.
    """
    row = connection.execute(
        "SELECT event FROM answers WHERE image = ? AND person = ?", (image, person)
    ).fetchone()
    rows = connection.execute(
        "SELECT image FROM answers WHERE person = ? AND image != ? AND event < ? "
        "ORDER BY event DESC LIMIT ?",
        (person, -1 if image is None else image, _LATER if row is None else row[0], count),
    )
    return [row[0] for row in rows]


def skipped(connection: Connection, person: int, count: int) -> list[int]:
    """Images that a person has skipped and that people are needed for, the earliest first."""
    rows = connection.execute(
        "SELECT image FROM answers JOIN images ON images.id = image "
        f"WHERE person = ? AND state = 'skipped' AND {_NEEDED} ORDER BY event LIMIT ?",
        (person, count),
    )
    return [row[0] for row in rows]


def still_open(
    connection: Connection, person: int, claims: Claims, images: Iterable[int]
) -> list[int]:
    """Those of some images that the person may still answer, also if they were skipped.

    Args:
        connection: Connection.
        person: Number of the person.
        claims: Images that are handed out.
        images: Numbers of the images.
    """
    found = []
    for image in images:
        row = connection.execute(
            f"SELECT places FROM images WHERE id = :image AND {_NEEDED} AND NOT EXISTS ("
            "SELECT 1 FROM answers WHERE answers.image = images.id AND answers.person = :person "
            "AND state != 'skipped')",
            {"image": image, "person": person},
        ).fetchone()
        if row is not None and row[0] - claims.others(image, person) > 0:
            found.append(image)
    return found


def count_not_shown(connection: Connection) -> int:
    """Number of images that people are still needed for and that cannot be shown."""
    (count,) = connection.execute(
        "SELECT count(*) FROM images WHERE places > 0 AND problem IS NOT NULL AND listed = 1"
    ).fetchone()
    return int(count)


def not_shown(connection: Connection, most: int) -> list[tuple[str, str]]:
    """Paths of such images, and why they cannot be shown, `most` of them."""
    rows = connection.execute(
        "SELECT path, problem FROM images WHERE places > 0 AND problem IS NOT NULL "
        "AND listed = 1 ORDER BY path LIMIT ?",
        (most,),
    )
    return [(row[0], row[1]) for row in rows]


def count_open(connection: Connection, person: int, claims: Claims) -> int:
    """Number of open images of a person."""
    total = connection.execute(f"SELECT count(*) FROM images WHERE {_NEEDED}").fetchone()[0]
    own = connection.execute(
        "SELECT count(*) FROM answers JOIN images ON images.id = answers.image "
        f"WHERE answers.person = ? AND {_NEEDED}",
        (person,),
    ).fetchone()[0]
    taken = 0
    for image in claims.images(person):
        row = connection.execute(
            f"SELECT places FROM images WHERE id = :image AND {_OPEN}",
            {"image": image, "person": person},
        ).fetchone()
        taken += row is not None and row[0] - claims.others(image, person) <= 0
    return int(total - own - taken)


def claim_begun(connection: Connection, claims: Claims) -> None:
    """Hand out images with strokes and without an answer to their people, at the start."""
    rows = connection.execute(
        "SELECT DISTINCT strokes.person, strokes.image FROM strokes LEFT JOIN answers "
        "ON answers.image = strokes.image AND answers.person = strokes.person "
        "WHERE answers.image IS NULL"
    )
    for person, image in rows:
        claims.take([image], person)
