"""The queue: next images of a person, and the progress of all.

An image is open for a person who has not answered it while people are still needed for it: answers
of others, and others to whom it is handed out, take its places.
"""

from __future__ import annotations

import math
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, groupby, islice
from pathlib import PurePath
from typing import Any

import numpy as np

from preceptor.label import marks
from preceptor.label.db import Connection

HANDED_OUT = 600.0  # seconds for which an image that was handed out is kept for a person
ALIVE = 30.0  # seconds after which a tab that does not renew is closed


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


class Tabs:
    """Tabs that have images open."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[tuple[int, int], tuple[str, float]] = {}  # by image and person
        self._lock = threading.Lock()

    def open(self, image: int, person: int, tab: str, *, take: bool = False) -> bool:
        """Open an image in a tab, or renew it; False if another tab has it and `take` is false."""
        with self._lock:
            holder, until = self._open.get((image, person), (tab, 0.0))
            if not take and holder != tab and until > self._clock():
                return False
            self._open[image, person] = (tab, self._clock() + ALIVE)
        return True

    def close(self, person: int, tab: str) -> bool:
        """Close a tab; whether the person has no other one open."""
        with self._lock:
            own = [(key, *value) for key, value in self._open.items() if key[1] == person]
            for key, holder, _ in own:
                if holder == tab:
                    del self._open[key]
            return all(holder == tab or until <= self._clock() for _, holder, until in own)


_NEEDED = "places > 0 AND problem IS NULL AND listed = 1"
_OPEN = (
    f"{_NEEDED} AND NOT EXISTS ("
    "SELECT 1 FROM answers WHERE answers.image = images.id AND answers.person = :person)"
)
_DAMAGED = "problem IS NOT NULL AND listed = 1"
_LATER = 2**63 - 1  # than every event


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
    """Images of a list that the person may still answer, also if they were skipped."""
    statement = (
        f"SELECT places FROM images WHERE id = :image AND {_NEEDED} AND NOT EXISTS ("
        "SELECT 1 FROM answers WHERE answers.image = images.id AND answers.person = :person "
        "AND state != 'skipped')"
    )
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


LOW = 0.5  # Dice below which the agreement of two people is low
_LATEST = (
    "SELECT max(later.id) FROM events AS later WHERE later.image = events.image "
    "AND later.person = events.person AND later.kind = 'note'"
)
FILTERS = {
    "": "1",
    "open": _NEEDED,
    "one": "1 = (SELECT count(*) FROM answers "
    "WHERE image = images.id AND state != 'skipped' {own})",
    "low": "id IN (SELECT value FROM json_each(:low))",
    "unsure": "EXISTS (SELECT 1 FROM answers WHERE image = images.id AND certainty = 1 {own})",
    "noted": "EXISTS (SELECT 1 FROM events WHERE image = images.id AND kind = 'note' {own} "
    f"AND json_extract(detail, '$.text') != '' AND events.id = ({_LATEST}))",
    "changed": "(EXISTS (SELECT 1 FROM events WHERE image = images.id AND kind = 'answer' {own} "
    "GROUP BY person HAVING count(*) > 1) "
    "OR EXISTS (SELECT 1 FROM answers_aside WHERE image = images.id {own}))",
}
"""Conditions of images by filter; `own` is about one person's work, or empty."""


def found_images(
    connection: Connection, kind: str, own: int | None, values: dict[str, Any]
) -> tuple[int, list[int]]:
    """Number of the images of a filter about everybody's or one's `own` work, and some by path."""
    condition = _OPEN if kind == "open" and own is not None else FILTERS[kind]
    where = f"FROM images WHERE listed = 1 AND {condition}".format(
        own="" if own is None else "AND person = :person"
    )
    if values["image"] is not None:
        where += " AND id = :image"
    if values["search"]:
        where += " AND instr(lower(path), lower(:search)) > 0"
    (total,) = connection.execute(f"SELECT count(*) {where}", values).fetchone()
    order = "ORDER BY path LIMIT :count OFFSET :after"
    return total, [row[0] for row in connection.execute(f"SELECT id {where} {order}", values)]


def work_on(
    connection: Connection, row: sqlite3.Row, own: int | None, side: int
) -> list[dict[str, Any]]:
    """What people have done on an image, as JSON: answer, note, and marks in a small frame."""
    people = connection.execute(
        "SELECT id, name FROM people WHERE (:own IS NULL OR id = :own) AND id IN ("
        "SELECT person FROM strokes WHERE image = :image AND undone = 0 "
        "UNION SELECT person FROM answers WHERE image = :image "
        "UNION SELECT person FROM events WHERE image = :image AND kind = 'note') ORDER BY name",
        {"own": own, "image": row["id"]},
    )
    made = []
    for number, name in people.fetchall():
        answer = marks.answer_of(connection, row["id"], number) or {}
        size = (row["width"] or 1, row["height"] or 1)
        frame, small = marks.small_marks(connection, row["id"], number, size, side)
        state = answer.get("state")
        fits = state not in marks.JUDGED or bool(small) == (state == "marked")
        made.append(
            {"id": number, "name": name, "note": marks.remark_of(connection, row["id"], number)}
            | {key: answer.get(key) for key in ("state", "label", "certainty", "seconds")}
            | {"fits": fits, "frame": frame, "marks": small}
        )
    return made


_State = tuple[Any, ...]
Comparisons = dict[tuple[int, int, int], tuple[_State, tuple[float, float]]]
"""Dice and IoU by image and two people, with what they depend on."""


def figures(connection: Connection, comparisons: Comparisons) -> dict[str, Any]:
    """Progress, times and agreement as JSON; earlier `comparisons` are not made again.

    An image counts for two people if both have judged it. Dice and IoU count pixels by class. They
    are undefined where both marked nothing.
    """
    images, done = count_done(connection)
    names = dict(connection.execute("SELECT id, name FROM people ORDER BY name").fetchall())
    (damaged,) = connection.execute(f"SELECT count(*) FROM images WHERE {_DAMAGED}").fetchone()
    return {
        "images": images,
        "done": done,
        "people": [_person(connection, *one) for one in names.items()],
        "sources": _sources(connection),
        "pairs": _pairs(connection, names, comparisons),
        "problems": [
            {"id": row["id"], "name": PurePath(row["path"]).name, "problem": row["problem"]}
            for row in connection.execute(
                f"SELECT id, path, problem FROM images WHERE {_DAMAGED} LIMIT 500"
            )
        ],
        "damaged": damaged,
    }


def _person(connection: Connection, number: int, name: str) -> dict[str, Any]:
    rows = connection.execute(
        "SELECT state, seconds FROM answers WHERE person = ? ORDER BY event", (number,)
    ).fetchall()
    states = {state: sum(row["state"] == state for row in rows) for state in marks.STATES}
    times = [row["seconds"] for row in rows if row["state"] in marks.JUDGED]
    return {
        "id": number,
        "name": name,
        **states,
        "done": len(rows) - states["skipped"],
        "minutes": _minutes(times),
    }


def _sources(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT source, count(*) AS images, sum(places <= 0) AS done FROM images "
        "WHERE listed = 1 AND asked = 1 GROUP BY source ORDER BY source"
    ).fetchall()
    times: dict[str, list[float]] = {row["source"]: [] for row in rows}
    for source, seconds in connection.execute(
        "SELECT source, seconds FROM answers JOIN images ON images.id = answers.image "
        "WHERE state IN ('marked', 'nothing')"
    ):
        times.setdefault(source, []).append(seconds)
    return [dict(row) | {"minutes": _minutes(times[row["source"]])} for row in rows]


def _minutes(seconds: Sequence[float]) -> float | None:
    return round(statistics.median(seconds) / 60, 3) if seconds else None


def _scores(
    connection: Connection, comparisons: Comparisons
) -> dict[tuple[int, int], dict[int, tuple[float, float]]]:
    """Dice and IoU of two people by image, of those that both have judged."""
    judged = connection.execute(
        "SELECT answers.image, answers.person, answers.state, count(strokes.id), "
        "max(strokes.id), sum(strokes.undone > 0), sum(strokes.undone * strokes.number) "
        "FROM answers LEFT JOIN strokes ON strokes.image = answers.image "
        "AND strokes.person = answers.person WHERE answers.state IN ('marked', 'nothing') "
        "AND answers.image IN (SELECT image FROM answers WHERE state IN ('marked', 'nothing') "
        "GROUP BY image HAVING count(*) > 1) GROUP BY answers.image, answers.person"
    )
    values: dict[tuple[int, int], dict[int, tuple[float, float]]] = {}
    for image, group in groupby(judged.fetchall(), key=lambda row: row[0]):
        people = sorted((row[1], tuple(row[2:])) for row in group)
        masks: dict[int, dict[str, marks.Patch]] = {}
        for (a, of_a), (b, of_b) in combinations(people, 2):
            state, scores = comparisons.get((image, a, b), (None, (math.nan, math.nan)))
            if state != (of_a, of_b):
                for one in {a, b} - masks.keys():
                    masks[one] = marks.masks_of(connection, image, one)
                scores = _agreement(masks[a], masks[b])
                comparisons[image, a, b] = ((of_a, of_b), scores)
            values.setdefault((a, b), {})[image] = scores
    return values


def lowest_agreement(connection: Connection, comparisons: Comparisons) -> dict[int, float]:
    """Lowest Dice of two people by image; where both marked nothing, there is none."""
    lowest: dict[int, float] = {}
    for by_image in _scores(connection, comparisons).values():
        for image, (dice, _) in by_image.items():
            if math.isfinite(dice):
                lowest[image] = min(round(dice, 4), lowest.get(image, 1.0))
    return lowest


def _pairs(
    connection: Connection, names: dict[int, str], comparisons: Comparisons
) -> list[dict[str, Any]]:
    """Agreement of two people on the images that both have judged."""
    pairs = []
    for (a, b), by_image in _scores(connection, comparisons).items():
        defined = [scores for scores in by_image.values() if math.isfinite(scores[0])]
        dice, iou = (
            round(sum(one) / len(one), 4) if one else None
            for one in ([scores[at] for scores in defined] for at in (0, 1))
        )
        empty = len(by_image) - len(defined)
        names_of = {"a": names[a], "b": names[b]}
        pairs.append(names_of | {"images": len(by_image), "empty": empty, "dice": dice, "iou": iou})
    return sorted(pairs, key=lambda pair: (pair["a"], pair["b"]))


def _agreement(a: dict[str, marks.Patch], b: dict[str, marks.Patch]) -> tuple[float, float]:
    """Dice and IoU of masks by class."""
    both = sum(marks.overlap_of(a[name], b[name]) for name in a.keys() & b.keys())
    sizes = sum(int(np.count_nonzero(one.bits)) for one in (*a.values(), *b.values()))
    return (2 * both / sizes, both / (sizes - both)) if sizes else (math.nan, math.nan)
