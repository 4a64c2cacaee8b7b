"""Marks: strokes as bitmaps of rectangles, their masks, and answers.

The mask of an image and a person is the fold of the person's strokes by number, without
undone ones: painted → OR, erased → AND NOT. A point is stored as one pixel, and folded as a disc.
The bits of a rectangle in row order are alternating runs, the first of zeros (it may be empty),
each an unsigned LEB128 integer. static/runs.js has the same code.
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.deploy.http import conflict, unknown
from preceptor.label.db import Connection, now

LIMIT = 100_000_000  # largest number of bits, and of pixels of an image
POINT_RADIUS = 0.14  # of the disc that a point stands for, as a share of the shorter side
_BYTES = 4  # of a run at most: 2²⁸ > LIMIT

Bits = NDArray[np.bool_]


def encode_runs(bits: Bits) -> bytes:
    """Encode the bits of a rectangle.

    Example:
        >>> encode_runs(np.array([[False, True], [True, True]])).hex()
        '0103'
    """
    flat = np.asarray(bits, bool).ravel()
    if not flat.size:
        return b""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], edges, [flat.size])))
    return _leb128(np.concatenate(([0], lengths)) if flat[0] else lengths)


def decode_runs(code: bytes, size: int) -> Bits:
    """Decode the `size` bits of a rectangle, flat; raises ValueError if the code is malformed."""
    lengths = run_lengths(code, size)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def run_lengths(code: bytes, size: int) -> NDArray[np.int64]:
    """Lengths of the runs, checked; see `decode_runs`."""
    if not 0 < size <= LIMIT:
        raise ValueError(f"the rectangle has {size:,} pixels; 1 to {LIMIT:,} are possible")
    raw = np.frombuffer(code, np.uint8)
    if not raw.size:
        raise ValueError("the runs are empty")
    last = np.flatnonzero(raw < 0x80)
    if not last.size or last[-1] != raw.size - 1:
        raise ValueError("the last run is cut short")
    first = np.concatenate(([0], last[:-1] + 1))
    widths = last - first + 1
    if widths.max() > _BYTES:
        raise ValueError("a run is too long")
    if (raw[last[widths > 1]] == 0).any():
        raise ValueError("a run has needless bytes")
    lengths = np.zeros(len(first), np.int64)
    for at in range(int(widths.max())):
        there = widths > at
        lengths[there] |= (raw[first[there] + at] & 0x7F).astype(np.int64) << (7 * at)
    if (lengths[1:] == 0).any():
        raise ValueError("a run other than the first is empty")
    total = int(lengths.sum())
    if total != size:
        raise ValueError(f"the runs have {total:,} pixels, the rectangle has {size:,}")
    return lengths


def to_text(code: bytes) -> str:
    """Code in base64, as in JSON."""
    return base64.b64encode(code).decode("ascii")


def from_text(text: str) -> bytes:
    """Code from base64."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("the runs are no base64") from error


def bounding_runs(mask: Bits) -> tuple[int, int, int, int, bytes] | None:
    """Bounding box (x, y, w, h) of the ones of a mask, and its code; None if there is no one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    y, x = int(rows[0]), int(columns[0])
    h, w = int(rows[-1]) - y + 1, int(columns[-1]) - x + 1
    return x, y, w, h, encode_runs(mask[y : y + h, x : x + w])


def _leb128(values: NDArray[np.int64]) -> bytes:
    shifts = 7 * np.arange(_BYTES)
    rest = values[:, None] >> shifts
    columns = (rest & 0x7F) | np.where(rest >> 7 > 0, 0x80, 0)
    return bytes(columns[(rest > 0) | (shifts == 0)].astype(np.uint8))


def save_stroke(connection: Connection, image: int, person: int, stroke: Mapping[str, Any]) -> None:
    """Store the columns of a stroke, within a transaction.

    Once more has no effect. Raises RefusedError (409) if another stroke has its uuid.
    """
    own = {"image": image, "person": person, **stroke}
    old = connection.execute("SELECT * FROM strokes WHERE uuid = ?", (stroke["uuid"],)).fetchone()
    if old is not None:
        if any(old[name] != value for name, value in own.items()):
            raise conflict("another stroke has this uuid")
        return
    (newest,) = connection.execute(
        "SELECT coalesce(max(number), 0) FROM strokes WHERE image = ? AND person = ?",
        (image, person),
    ).fetchone()
    # What is undone when a new stroke comes cannot be redone any more.
    connection.execute(
        "UPDATE strokes SET undone = 2 WHERE image = ? AND person = ? AND undone = 1",
        (image, person),
    )
    _insert(connection, "INSERT INTO strokes", own | {"number": newest + 1, "saved": now()})


def _insert(connection: Connection, statement: str, values: Mapping[str, Any]) -> None:
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(f"{statement} ({', '.join(values)}) VALUES ({marks})", values)


def turn(connection: Connection, image: int, person: int, uuid: str, *, undone: bool) -> None:
    """Undo the newest stroke, or redo the one that was undone last, within a transaction.

    Once more has no effect. Raises RefusedError for another stroke (409) or an unknown one (404).
    """
    rows = connection.execute(
        "SELECT uuid, undone FROM strokes WHERE image = ? AND person = ? ORDER BY number",
        (image, person),
    ).fetchall()
    if all(row["uuid"] != uuid for row in rows):
        raise unknown("there is no such stroke")
    newest = [row["uuid"] for row in rows if row["undone"] == 0][-1:]
    redoable = [row["uuid"] for row in rows if row["undone"] == 1][:1]
    changed, unchanged = (newest, redoable) if undone else (redoable, newest)
    if unchanged == [uuid]:
        return
    if changed != [uuid]:
        what = "only the newest stroke can be undone" if undone else "this stroke cannot be redone"
        raise conflict(f"{what}; load the image again")
    connection.execute("UPDATE strokes SET undone = ? WHERE uuid = ?", (int(undone), uuid))


def strokes_of(connection: Connection, image: int, person: int) -> list[dict[str, Any]]:
    """Strokes of a person on an image by number, as JSON."""
    rows = connection.execute(
        "SELECT * FROM strokes WHERE image = ? AND person = ? ORDER BY number", (image, person)
    )
    names = ("uuid", "number", "tool", "x", "y", "w", "h", "started")
    return [
        {name: row[name] for name in names}
        | {"erase": bool(row["erase"]), "runs": to_text(row["runs"])}
        | {"undone": bool(row["undone"]), "redoable": row["undone"] == 1}
        for row in rows
    ]


@dataclass(frozen=True, eq=False)
class Patch:
    """Mask within a rectangle; nothing is marked outside."""

    x: int  # first column and row
    y: int
    bits: Bits  # bool of shape (h, w); may be empty

    def whole(self, width: int, height: int) -> Bits:
        """Mask of the whole image."""
        mask = np.zeros((height, width), bool)
        h, w = self.bits.shape
        mask[self.y : self.y + h, self.x : self.x + w] = self.bits
        return mask


EMPTY = Patch(0, 0, np.zeros((0, 0), bool))


def disc(x: int, y: int, width: int, height: int) -> Patch:
    """Disc of a point in an image of a width and a height: centers of pixels within the radius."""
    radius = POINT_RADIUS * min(width, height)
    reach = int(radius)
    left, top = max(0, x - reach), max(0, y - reach)
    columns = np.arange(left, min(width, x + reach + 1)) - x
    rows = np.arange(top, min(height, y + reach + 1)) - y
    return Patch(left, top, columns**2 + rows[:, None] ** 2 <= radius**2)


def _patch(row: sqlite3.Row) -> Patch:
    """Pixels of a stroke."""
    x, y, w, h = (row[key] for key in "xywh")
    if row["tool"] == "point":
        return disc(x, y, row["width"], row["height"])
    return Patch(x, y, decode_runs(row["runs"], w * h).reshape(h, w))


def fold(rows: Iterable[sqlite3.Row]) -> Patch:
    """Mask that strokes make, which are ordered by number and not undone."""
    strokes = [(_patch(row), bool(row["erase"])) for row in rows]
    canvas = _frame([patch for patch, erases in strokes if not erases])
    for stroke, erases in strokes:
        ours, theirs = _common(canvas, stroke)  # an eraser may reach beyond what is painted
        if erases:
            canvas.bits[ours] &= ~stroke.bits[theirs]
        else:
            canvas.bits[ours] |= stroke.bits[theirs]
    return canvas


def _frame(patches: Sequence[Patch]) -> Patch:
    """Empty mask of the common bounding box of masks."""
    if not patches:
        return EMPTY
    boxes = [(one.x, one.y, *one.bits.shape[::-1]) for one in patches]
    left, top = min(x for x, *_ in boxes), min(y for _, y, *_ in boxes)
    right, bottom = max(x + w for x, _, w, _ in boxes), max(y + h for _, y, _, h in boxes)
    return Patch(left, top, np.zeros((bottom - top, right - left), bool))


def _common(a: Patch, b: Patch) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The rectangle that two masks have in common, as slices of each."""
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = max(x0, min(a.x + a.bits.shape[1], b.x + b.bits.shape[1]))
    y1 = max(y0, min(a.y + a.bits.shape[0], b.y + b.bits.shape[0]))

    def within(one: Patch) -> tuple[slice, slice]:
        return slice(y0 - one.y, y1 - one.y), slice(x0 - one.x, x1 - one.x)

    return within(a), within(b)


def small_work(connection: Connection, row: sqlite3.Row, person: int, side: int) -> dict[str, Any]:
    """What a person has done on an image, as JSON: answer, and marks in a small frame.

    The sides of the frame have at most `side` pixels; those that a mark touches are marked.
    """
    size = (row["width"] or 1, row["height"] or 1)
    factor = max(1.0, max(size) / side)
    width, height = frame = [max(1, round(one / factor)) for one in size]
    mask, made = mask_of(connection, row["id"], person), None
    small = np.zeros((height, width), bool)
    if mask.bits.size:
        sides = zip(mask.bits.shape, (mask.y, mask.x), (height, width), strict=True)
        places = (
            np.minimum((np.arange(first, first + count) / factor).astype(int), end - 1)
            for count, first, end in sides
        )
        (ys, tops), (xs, lefts) = (np.unique(one, return_index=True) for one in places)
        touched = np.logical_or.reduceat(np.logical_or.reduceat(mask.bits, tops), lefts, 1)
        small[np.ix_(ys, xs)] = touched
    if (bounds := bounding_runs(small)) is not None:
        made = dict(zip("xywh", bounds[:4], strict=True)) | {"runs": to_text(bounds[4])}
    answer = answer_of(connection, row["id"], person) or {}
    state = answer.get("state")
    fits = state not in JUDGED or (made is not None) == (state == "marked")
    return {"state": state, "fits": fits, "frame": frame, "mark": made}


def mask_of(connection: Connection, image: int, person: int) -> Patch:
    """What a person has marked on an image."""
    rows = connection.execute(
        "SELECT tool, erase, x, y, w, h, runs, width, height FROM strokes "
        "JOIN images ON images.id = image "
        "WHERE image = ? AND person = ? AND undone = 0 ORDER BY number",
        (image, person),
    )
    return fold(rows.fetchall())


def has_marks(connection: Connection, image: int, person: int) -> bool:
    """Whether anything of an image is marked by a person."""
    painted, erased = connection.execute(
        "SELECT coalesce(sum(erase = 0), 0), coalesce(sum(erase), 0) FROM strokes "
        "WHERE image = ? AND person = ? AND undone = 0",
        (image, person),
    ).fetchone()
    if not painted or not erased:
        return bool(painted)
    return bool(mask_of(connection, image, person).bits.any())


STATES = ("marked", "nothing", "cannot_judge")
JUDGED = STATES[:2]  # that say what is marked
_OWN = "WHERE image = :image AND person = :person"


def save_answer(connection: Connection, image: int, person: int, answer: Mapping[str, Any]) -> None:
    """Store the columns of an answer in place of an earlier one, within a transaction.

    Raises RefusedError (409) if it contradicts the marks.
    """
    state = answer["state"]
    if state in JUDGED:
        marks = has_marks(connection, image, person)
        if state == "marked" and not marks:
            raise conflict("nothing is marked; mark something, or answer: nothing to mark")
        if state == "nothing" and marks:
            raise conflict("something is marked; erase it or undo it, or answer: marked")
    key = {"image": image, "person": person}
    before = connection.execute(f"DELETE FROM answers {_OWN}", key).rowcount
    connection.execute(f"DELETE FROM answers_aside {_OWN}", key)
    (newest,) = connection.execute("SELECT coalesce(max(number), 0) FROM answers").fetchone()
    _insert(connection, "INSERT INTO answers", key | {"at": now(), "number": newest + 1, **answer})
    _add_places(connection, image, before - 1)


def marks_without_answer(connection: Connection) -> dict[int, list[str]]:
    """Names of the people whose marks have no answer that says what is marked, by image."""
    rows = connection.execute(
        "SELECT DISTINCT strokes.image, strokes.person, name FROM strokes "
        "JOIN people ON people.id = strokes.person LEFT JOIN answers "
        "ON answers.image = strokes.image AND answers.person = strokes.person "
        "WHERE undone = 0 AND erase = 0 AND (state IS NULL OR state NOT IN ('marked', 'nothing'))"
    )
    names: dict[int, list[str]] = {}
    for image, person, name in rows.fetchall():
        if has_marks(connection, image, person):
            names.setdefault(image, []).append(name)
    return names


def _add_places(connection: Connection, image: int, change: int) -> None:
    if change:
        connection.execute(
            "UPDATE images SET places = places + ? WHERE id = ? AND asked = 1", (change, image)
        )


def settle_answer(connection: Connection, image: int, person: int) -> bool:
    """Set an answer aside that does not fit the marks any more, or bring it back once it does.

    For each change of marks, within its transaction. Returns whether the answer is aside now; the
    image is open for the person then.
    """
    key = {"image": image, "person": person}
    row = connection.execute(
        f"SELECT state, 1 AS counts FROM answers {_OWN} "
        f"UNION ALL SELECT state, 0 FROM answers_aside {_OWN}",
        key,
    ).fetchone()
    if row is None or row["state"] not in JUDGED:
        return False
    fits = has_marks(connection, image, person) == (row["state"] == "marked")
    if fits != bool(row["counts"]):
        old, new = ("answers_aside", "answers") if fits else ("answers", "answers_aside")
        connection.execute(f"INSERT INTO {new} SELECT * FROM {old} {_OWN}", key)
        connection.execute(f"DELETE FROM {old} {_OWN}", key)
        _add_places(connection, image, -1 if fits else 1)
    return not fits


def answer_of(connection: Connection, image: int, person: int) -> dict[str, Any] | None:
    """Answer of a person as JSON, also if it is aside: the page finds out whether it fits."""
    row = connection.execute(
        f"SELECT * FROM answers {_OWN} UNION ALL SELECT * FROM answers_aside {_OWN}",
        {"image": image, "person": person},
    ).fetchone()
    names = ("state", "label", "at", "seconds")
    return None if row is None else {name: row[name] for name in names}
