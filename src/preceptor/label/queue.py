"""The queue: next images of a person, and the progress of all.

An image is open for a person who has not answered it while people are still needed for it: answers
of others, and others to whom it is handed out, take its places.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from preceptor.label import marks
from preceptor.label.db import Connection

HANDED_OUT = 600.0  # seconds for which an image that was handed out is kept for a person


class Claims:
    """Images that are handed out to people."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[int, dict[int, float]] = {}  # by image and person
        self._lock = threading.RLock()

    def others(self, image: int, person: int) -> int:
        """Number of other people who have an image."""
        with self._lock:
            held, present = self._until.get(image, {}), self._clock()
            return sum(other != person and until > present for other, until in held.items())

    def images(self, person: int) -> set[int]:
        """Images that other people have."""
        with self._lock:
            return {image for image in self._until if self.others(image, person)}

    def take(self, images: Iterable[int], person: int) -> None:
        """Hand out images to a person, or renew it."""
        with self._lock:
            until = self._clock() + HANDED_OUT
            for image in images:
                self._until.setdefault(image, {})[person] = until

    def drop(self, image: int, person: int) -> None:
        """Give back an image that is answered."""
        with self._lock:
            self._until.get(image, {}).pop(person, None)

    def drop_all(self, person: int) -> None:
        """Give back all images of a person."""
        with self._lock:
            for held in self._until.values():
                held.pop(person, None)


_NEEDED = "places > 0 AND problem IS NULL AND listed = 1"
_OPEN = (
    f"{_NEEDED} AND NOT EXISTS ("
    "SELECT 1 FROM answers WHERE answers.image = images.id AND answers.person = :person)"
)
_LATER = 2**63 - 1  # than every answer


def open_images(
    connection: Connection, person: int, claims: Claims, count: int, without: int | None = None
) -> list[int]:
    """Next open images of a person, the first one to show first."""
    rows = connection.execute(
        f"SELECT id, places FROM images WHERE {_OPEN} ORDER BY position", {"person": person}
    )
    free = (one for one, places in rows if one != without and places > claims.others(one, person))
    return list(islice(free, count))


def answered_before(
    connection: Connection, person: int, image: int | None, count: int
) -> list[int]:
    """Images that a person answered before an image (all, of an open one), the latest first."""
    row = connection.execute(
        "SELECT number FROM answers WHERE image = ? AND person = ?", (image, person)
    ).fetchone()
    rows = connection.execute(
        "SELECT image FROM answers WHERE person = ? AND image != ? AND number < ? "
        "ORDER BY number DESC LIMIT ?",
        (person, -1 if image is None else image, _LATER if row is None else row[0], count),
    )
    return [row[0] for row in rows]


def still_open(
    connection: Connection, person: int, claims: Claims, images: Iterable[int]
) -> list[int]:
    """Images of a list that the person may still answer."""
    statement = f"SELECT places FROM images WHERE id = :image AND {_OPEN}"
    rows = ((one, {"image": one, "person": person}) for one in images)
    return [
        image
        for image, values in rows
        for (places,) in connection.execute(statement, values).fetchall()
        if places > claims.others(image, person)
    ]


def not_shown(connection: Connection) -> list[tuple[str, str]]:
    """Images that people are still needed for and that cannot be shown: paths and reasons."""
    rows = connection.execute(
        "SELECT path, problem FROM images WHERE places > 0 AND problem IS NOT NULL "
        "AND listed = 1 ORDER BY path"
    )
    return [(row[0], row[1]) for row in rows]


def count_done(connection: Connection) -> tuple[int, int]:
    """Numbers of the images that are asked for, and of those that nobody is needed for."""
    images, done = connection.execute(
        "SELECT count(*), coalesce(sum(places <= 0), 0) FROM images WHERE listed = 1 AND asked = 1"
    ).fetchone()
    return images, done


def count_examined(connection: Connection) -> int:
    """Number of images that somebody has marked, or found nothing to mark on."""
    (count,) = connection.execute(
        "SELECT count(DISTINCT image) FROM answers JOIN images ON images.id = image "
        "WHERE state IN ('marked', 'nothing') AND listed = 1 AND asked = 1"
    ).fetchone()
    return int(count)


def count_open(connection: Connection, person: int) -> int:
    """Number of open images of a person, with those that others have at present."""
    total = connection.execute(f"SELECT count(*) FROM images WHERE {_NEEDED}").fetchone()[0]
    own = connection.execute(
        "SELECT count(*) FROM answers JOIN images ON images.id = answers.image "
        f"WHERE answers.person = ? AND {_NEEDED}",
        (person,),
    ).fetchone()[0]
    return int(total - own)


def count_reserved(connection: Connection, person: int, claims: Claims) -> int:
    """Number of open images of a person that are handed out to others."""
    return sum(
        places <= claims.others(image, person)
        for image in claims.images(person)
        for (places,) in connection.execute(
            f"SELECT places FROM images WHERE id = :image AND {_OPEN}",
            {"image": image, "person": person},
        ).fetchall()
    )


def claim_begun(connection: Connection, claims: Claims, own: int | None = None) -> None:
    """Hand out images with strokes and without an answer to their people, or to one of them."""
    rows = connection.execute(
        "SELECT DISTINCT strokes.person, strokes.image FROM strokes LEFT JOIN answers "
        "ON answers.image = strokes.image AND answers.person = strokes.person "
        "WHERE answers.image IS NULL AND (:own IS NULL OR strokes.person = :own)",
        {"own": own},
    )
    for person, image in rows:
        claims.take([image], person)


FILTERS = {
    "": "1",
    "open": _OPEN,
    "answered": "EXISTS (SELECT 1 FROM answers WHERE image = images.id AND person = :person)",
}
"""Conditions of images for a person, by filter."""


def found_images(
    connection: Connection, kind: str, person: int, after: int, count: int
) -> tuple[int, list[int]]:
    """Number of the images of a filter, and some of them by path."""
    where = f"FROM images WHERE listed = 1 AND {FILTERS[kind]}"
    values = {"person": person, "after": after, "count": count}
    (total,) = connection.execute(f"SELECT count(*) {where}", values).fetchone()
    order = "ORDER BY path LIMIT :count OFFSET :after"
    return total, [row[0] for row in connection.execute(f"SELECT id {where} {order}", values)]


def figures(connection: Connection) -> dict[str, Any]:
    """Progress and times: images, those that are done, and the answers of each person."""
    images, done = count_done(connection)
    names = connection.execute("SELECT id, name FROM people ORDER BY name").fetchall()
    return {"images": images, "done": done, "people": [_person(connection, *one) for one in names]}


def _person(connection: Connection, number: int, name: str) -> dict[str, Any]:
    rows = connection.execute(
        "SELECT state, seconds FROM answers WHERE person = ?", (number,)
    ).fetchall()
    states = {state: sum(row["state"] == state for row in rows) for state in marks.STATES}
    times = [row["seconds"] for row in rows if row["state"] in marks.JUDGED]
    minutes = round(statistics.median(times) / 60, 3) if times else None
    return {"name": name, **states, "minutes": minutes}
