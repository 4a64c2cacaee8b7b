"""Strokes: bitmaps within rectangles, painted or erased, and the masks that they make.

The mask of an image, a person and a class is the fold of the person's strokes by number, without
those that are undone: painted → OR, erased → AND NOT.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from preceptor.label.clock import now
from preceptor.label.database import Connection
from preceptor.label.events import note
from preceptor.label.runs import Bits, decode_runs, to_text
from preceptor.web.refusal import conflict, unknown


@dataclass(frozen=True)
class Stroke:
    """One stroke, as the page sends it.

    Args:
        uuid: Its name, made by the page.
        tool: Name of the tool.
        class_: Class of the mark.
        erase: Whether it erases.
        x, y, w, h: Rectangle in pixels of the image.
        runs: Bits of the rectangle, see `runs`.
        started: Time of its begin.
        seconds: Duration.
        proposal: Number of the proposal that it adopts, or None.
        version: Version of the file that it was drawn on, or None.
    """

    uuid: str
    tool: str
    class_: str
    erase: bool
    x: int
    y: int
    w: int
    h: int
    runs: bytes
    started: str
    seconds: float
    proposal: int | None = None
    version: str | None = None


def save_stroke(connection: Connection, image: int, person: int, stroke: Stroke) -> tuple[int, str]:
    """Store a stroke, within a transaction; once more has no effect.

    Returns:
        Number of the stroke, and when it was stored.

    Raises:
        RefusedError: Another stroke has its uuid (409).
    """
    old = connection.execute("SELECT * FROM strokes WHERE uuid = ?", (stroke.uuid,)).fetchone()
    if old is not None:
        if old["image"] == image and old["person"] == person and _of(old) == stroke:
            return int(old["number"]), str(old["saved"])
        raise conflict("another stroke has this uuid")
    number = (
        1
        + connection.execute(
            "SELECT coalesce(max(number), 0) FROM strokes WHERE image = ? AND person = ?",
            (image, person),
        ).fetchone()[0]
    )
    # What is undone when a new stroke comes cannot be redone any more.
    connection.execute(
        "UPDATE strokes SET undone = 2 WHERE image = ? AND person = ? AND undone = 1",
        (image, person),
    )
    values = asdict(stroke)
    values["class"] = values.pop("class_")
    values |= {"image": image, "person": person, "number": number, "saved": now()}
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT INTO strokes ({names}) VALUES ({marks})", values)
    if stroke.proposal is not None:
        note(connection, image, person, "proposal_adopted", {"proposal": stroke.proposal})
    return number, str(values["saved"])


def _of(row: sqlite3.Row) -> Stroke:
    return Stroke(
        row["uuid"],
        row["tool"],
        row["class"],
        bool(row["erase"]),
        row["x"],
        row["y"],
        row["w"],
        row["h"],
        bytes(row["runs"]),
        row["started"],
        row["seconds"],
        row["proposal"],
        row["version"],
    )


def undo(connection: Connection, image: int, person: int, uuid: str) -> None:
    """Undo the newest stroke that is not undone, within a transaction; twice has no effect.

    Raises:
        RefusedError: There is no such stroke (404), or it is not the newest (409).
    """
    state = _undone(connection, image, person, uuid)
    if state == 1 and uuid == _first_redo(connection, image, person):
        return
    if state or uuid != _newest(connection, image, person):
        raise conflict("only the newest stroke can be undone; load the image again")
    _set_undone(connection, uuid, 1)
    note(connection, image, person, "undo", {"uuid": uuid})


def redo(connection: Connection, image: int, person: int, uuid: str) -> None:
    """Redo the stroke that was undone last, within a transaction; twice has no effect.

    Raises:
        RefusedError: There is no such stroke (404), or it is not the next one (409).
    """
    state = _undone(connection, image, person, uuid)
    if not state and uuid == _newest(connection, image, person):
        return
    if state != 1 or uuid != _first_redo(connection, image, person):
        raise conflict("this stroke cannot be redone; load the image again")
    _set_undone(connection, uuid, 0)
    note(connection, image, person, "redo", {"uuid": uuid})


def _undone(connection: Connection, image: int, person: int, uuid: str) -> int:
    row = connection.execute(
        "SELECT undone FROM strokes WHERE uuid = ? AND image = ? AND person = ?",
        (uuid, image, person),
    ).fetchone()
    if row is None:
        raise unknown("there is no such stroke")
    return int(row[0])


def _newest(connection: Connection, image: int, person: int) -> str | None:
    row = connection.execute(
        "SELECT uuid FROM strokes WHERE image = ? AND person = ? AND undone = 0 "
        "ORDER BY number DESC LIMIT 1",
        (image, person),
    ).fetchone()
    return None if row is None else str(row[0])


def _first_redo(connection: Connection, image: int, person: int) -> str | None:
    row = connection.execute(
        "SELECT uuid FROM strokes WHERE image = ? AND person = ? AND undone = 1 "
        "ORDER BY number LIMIT 1",
        (image, person),
    ).fetchone()
    return None if row is None else str(row[0])


def _set_undone(connection: Connection, uuid: str, value: int) -> None:
    connection.execute("UPDATE strokes SET undone = ? WHERE uuid = ?", (value, uuid))


def strokes_of(connection: Connection, image: int, person: int) -> list[dict[str, Any]]:
    """Strokes of a person on an image by number, as JSON.

    `undone` says whether a stroke is undone, `redoable` whether that can be taken back.
    """
    rows = connection.execute(
        "SELECT * FROM strokes WHERE image = ? AND person = ? ORDER BY number", (image, person)
    )
    return [
        {
            "uuid": row["uuid"],
            "number": row["number"],
            "tool": row["tool"],
            "class": row["class"],
            "erase": bool(row["erase"]),
            "x": row["x"],
            "y": row["y"],
            "w": row["w"],
            "h": row["h"],
            "runs": to_text(row["runs"]),
            "undone": bool(row["undone"]),
            "redoable": row["undone"] == 1,
            "proposal": row["proposal"],
        }
        for row in rows
    ]


@dataclass(frozen=True, eq=False)
class Patch:
    """Mask within a rectangle; nothing is marked outside.

    Args:
        x, y: First column and row.
        bits: bool of shape (h, w); may be empty.
    """

    x: int
    y: int
    bits: Bits

    def whole(self, width: int, height: int) -> Bits:
        """Mask of the whole image."""
        mask = np.zeros((height, width), bool)
        h, w = self.bits.shape
        mask[self.y : self.y + h, self.x : self.x + w] = self.bits
        return mask


EMPTY = Patch(0, 0, np.zeros((0, 0), bool))


def fold(rows: Iterable[sqlite3.Row]) -> Patch:
    """Mask that strokes make.

    Args:
        rows: Rows with `erase`, `x`, `y`, `w`, `h` and `runs`, by number, without undone ones.
    """
    strokes = list(rows)
    painted = [row for row in strokes if not row["erase"]]
    if not painted:
        return EMPTY
    left, top = min(row["x"] for row in painted), min(row["y"] for row in painted)
    right = max(row["x"] + row["w"] for row in painted)
    bottom = max(row["y"] + row["h"] for row in painted)
    mask = np.zeros((bottom - top, right - left), bool)
    for row in strokes:
        bits = decode_runs(row["runs"], row["w"] * row["h"]).reshape(row["h"], row["w"])
        x, y = row["x"] - left, row["y"] - top
        if not row["erase"]:
            mask[y : y + row["h"], x : x + row["w"]] |= bits
            continue
        # An eraser may reach beyond what is painted.
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + row["w"], mask.shape[1]), min(y + row["h"], mask.shape[0])
        if x0 < x1 and y0 < y1:
            mask[y0:y1, x0:x1] &= ~bits[y0 - y : y1 - y, x0 - x : x1 - x]
    return Patch(left, top, mask)


def masks_of(connection: Connection, image: int, person: int) -> dict[str, Patch]:
    """Mask of each class that a person has marked on an image."""
    rows = connection.execute(
        "SELECT class, erase, x, y, w, h, runs FROM strokes "
        "WHERE image = ? AND person = ? AND undone = 0 ORDER BY number",
        (image, person),
    )
    by_class: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    return {name: fold(strokes) for name, strokes in by_class.items()}


def union(masks: Iterable[Patch]) -> Patch:
    """Pixels that are marked in any of several masks."""
    parts = [one for one in masks if one.bits.size]
    if not parts:
        return EMPTY
    left, top = min(one.x for one in parts), min(one.y for one in parts)
    right = max(one.x + one.bits.shape[1] for one in parts)
    bottom = max(one.y + one.bits.shape[0] for one in parts)
    bits = np.zeros((bottom - top, right - left), bool)
    for one in parts:
        y, x = one.y - top, one.x - left
        bits[y : y + one.bits.shape[0], x : x + one.bits.shape[1]] |= one.bits
    return Patch(left, top, bits)


def has_marks(connection: Connection, image: int, person: int) -> bool:
    """Whether anything of an image is marked by a person."""
    painted, erased = connection.execute(
        "SELECT coalesce(sum(erase = 0), 0), coalesce(sum(erase), 0) FROM strokes "
        "WHERE image = ? AND person = ? AND undone = 0",
        (image, person),
    ).fetchone()
    if not painted or not erased:
        return bool(painted)
    return any(one.bits.any() for one in masks_of(connection, image, person).values())
