"""What a person is shown next: open images, earlier ones, and proposals of a Teacher.

An image is open for a person who has not answered it while people are still needed for it: answers
of others, and others to whom it is handed out, take its places.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from preceptor.label.db import Connection, LabelSettings, now
from preceptor.label.marks import to_text

HANDED_OUT = 600.0
"""Seconds for which an image that was handed out is kept for a person."""
ALIVE = 30.0
"""Seconds after which a tab that does not renew is closed."""


class Claims:
    """Images that are handed out to people."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[int, dict[int, float]] = {}
        self._lock = threading.Lock()

    def others(self, image: int, person: int) -> int:
        """Number of other people who have an image."""
        with self._lock:
            now = self._clock()
            held = self._until.get(image)
            return sum(one != person and until > now for one, until in (held or {}).items())

    def images(self, person: int) -> set[int]:
        """Images that other people have."""
        with self._lock:
            now = self._clock()
            return {
                image
                for image, held in self._until.items()
                if any(one != person and until > now for one, until in held.items())
            }

    def take(self, images: Iterable[int], person: int) -> None:
        """Hand out images to a person, or renew it."""
        with self._lock:
            until = self._clock() + HANDED_OUT
            for image in images:
                self._until.setdefault(image, {})[person] = until

    def drop(self, image: int, person: int) -> None:
        """Give back an image that is answered."""
        with self._lock:
            held = self._until.get(image, {})
            held.pop(person, None)
            if not held:
                self._until.pop(image, None)


class Tabs:
    """Tabs that have images open."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[tuple[int, int], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def elsewhere(self, image: int, person: int, tab: str) -> bool:
        """Whether another tab of a person has an image open."""
        with self._lock:
            return self._elsewhere(image, person, tab)

    def _elsewhere(self, image: int, person: int, tab: str) -> bool:
        held = self._open.get((image, person))
        return held is not None and held[0] != tab and held[1] > self._clock()

    def open(self, image: int, person: int, tab: str, *, take: bool = False) -> bool:
        """Open an image in a tab, or renew it."""
        with self._lock:
            if not take and self._elsewhere(image, person, tab):
                return False
            now = self._clock()
            if len(self._open) > 10_000:
                self._open = {key: one for key, one in self._open.items() if one[1] > now}
            self._open[image, person] = (tab, now + ALIVE)
            return True

    def close(self, image: int, person: int, tab: str) -> None:
        """Close an image in a tab."""
        with self._lock:
            if self._open.get((image, person), ("", 0.0))[0] == tab:
                del self._open[image, person]


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
    """Next open images of a person, the first one to show first."""
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
    """Images that a person answered before an image (all, of an open one), the latest first."""
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
    """Those of some images that the person may still answer, also if they were skipped."""
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


@dataclass(frozen=True)
class Proposal:
    """Proposed mask of an image, within its bounding box."""

    image: int
    x: int  # rectangle in pixels of the image
    y: int
    w: int
    h: int
    runs: bytes  # bits of the rectangle, see `runs`
    score: float | None = None  # score of the Teacher, or None


def add_teacher(
    connection: Connection,
    folder: str,
    images: int,
    agreement: float | None = None,
    *,
    event: int = 0,
) -> int:
    """Store a Teacher, within a transaction."""
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
    """Store proposals of a Teacher in place of its earlier ones, within a transaction."""
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
    enough."""
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
    """Proposal that a person is shown now, or None."""
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
    """Whether a split is for validation or test."""
    return split.split("-")[0] in ("val", "test")
