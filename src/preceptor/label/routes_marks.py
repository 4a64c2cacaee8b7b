"""Routes that change marks: opening, strokes, undo, redo, answers, times."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from preceptor.label import bodies
from preceptor.label.answers import JUDGED, has_work, save_answer, settle_answer
from preceptor.label.calls import Call
from preceptor.label.database import Connection
from preceptor.label.events import note, note_proposal_shown
from preceptor.label.handing_out import hand_out, sized
from preceptor.label.queue import still_open
from preceptor.label.strokes import redo, save_stroke, undo
from preceptor.web.refusal import RefusedError, conflict, malformed
from preceptor.web.replies import Reply, told

T = TypeVar("T")

ELSEWHERE = "this image is open in another tab; continue there, or take it over"


def open_image(call: Call) -> Reply:
    """Open an image in a tab, renew it and the next ones, take it over, or close it."""
    person, row, body = call.someone, call.image(), call.body
    tab, line = bodies.tab(body), bodies.images(body, "line")
    labeling = call.labeling
    tabs = labeling.tabs
    if bodies.yes_no(body, "close", False):
        tabs.close(row["id"], person.id, tab)
        return told({"ok": True})
    if not tabs.open(row["id"], person.id, tab, take=bodies.yes_no(body, "take", False)):
        raise conflict(ELSEWHERE)
    with labeling.handing_out:
        kept = still_open(call.reading, person.id, labeling.claims, line)
        labeling.claims.take([row["id"], *kept], person.id)
    return told({"ok": True, "line": kept})


def _own_tab(call: Call, image: int, body: dict[str, object]) -> None:
    """Check that no other tab of the person has the image, which this one has from now on."""
    if not call.labeling.tabs.open(image, call.someone.id, bodies.tab(body)):
        raise conflict(ELSEWHERE)


def _marked_row(call: Call) -> sqlite3.Row:
    """Row of the image; what people did is saved also while no image can be reached."""
    (row,) = sized(call.labeling, call.reading, [call.image()["id"]], need_files=False)
    return row


def _check_version(connection: Connection, row: sqlite3.Row, version: str | None) -> None:
    """Check that the file is the one that was shown, unless the image has work of an earlier one.

    Such work is kept with its version, and exports name it.
    """
    if version is None or row["looked_at"] in (None, version):
        return
    if not has_work(connection, row["id"]):
        raise conflict("the file of this image was replaced after it was shown")


def strokes(call: Call) -> Reply:
    """Save a stroke."""
    person, body = call.someone, call.body
    row = _marked_row(call)
    if row["width"] is None:
        raise conflict("this image cannot be read, and cannot be marked")
    stroke = bodies.stroke(body, call.labeling.settings, row["width"], row["height"])
    _check_version(call.reading, row, stroke.version)
    if stroke.proposal is not None:
        _check_proposal(call.reading, row, stroke.proposal)
    _own_tab(call, row["id"], body)
    number, saved = _change_marks(
        call, row["id"], lambda connection: save_stroke(connection, row["id"], person.id, stroke)
    )
    return told({"number": number, "saved_at": saved})


def _change_marks(call: Call, image: int, change: Callable[[Connection], T]) -> T:
    """Change marks in a transaction; an image whose answer does not fit them is kept for one."""
    person = call.someone.id

    def changed(connection: Connection) -> tuple[T, bool]:
        return change(connection), settle_answer(connection, image, person)

    value, is_aside = call.labeling.database.write(changed)
    if is_aside:
        call.labeling.claims.take([image], person)
    return value


def _check_proposal(connection: Connection, row: sqlite3.Row, proposal: int) -> None:
    found = connection.execute(
        "SELECT 1 FROM proposals WHERE id = ? AND image = ?", (proposal, row["id"])
    ).fetchone()
    if found is None:
        raise malformed("proposal: there is no such proposal for this image")


def _turn(call: Call, change: Callable[[Connection, int, int, str], None]) -> Reply:
    person, row, body = call.someone, call.image(), call.body
    name = bodies.uuid(body)
    _own_tab(call, row["id"], body)
    _change_marks(call, row["id"], lambda writing: change(writing, row["id"], person.id, name))
    return told({"ok": True})


def undo_stroke(call: Call) -> Reply:
    """Undo the newest stroke."""
    return _turn(call, undo)


def redo_stroke(call: Call) -> Reply:
    """Redo the stroke that was undone last."""
    return _turn(call, redo)


def answer(call: Call) -> Reply:
    """Save an answer, and hand out the next image unless `next` is false."""
    person, body = call.someone, call.body
    row = _marked_row(call)
    given = bodies.answer(body, call.labeling.settings)
    if given.state in JUDGED and row["width"] is None:
        raise conflict("this image cannot be read, and cannot be judged")
    if given.state != "skipped":
        _check_version(call.reading, row, given.version)
    is_next_wanted = bodies.yes_no(body, "next", default=True)
    if given.proposal is not None:
        _check_proposal(call.reading, row, given.proposal)
    _own_tab(call, row["id"], body)

    def change(connection: Connection) -> None:
        _note_shown(connection, row["id"], person.id, given.proposal)
        save_answer(connection, row["id"], person.id, given)

    call.labeling.database.write(change)
    call.labeling.claims.drop(row["id"], person.id)
    following: list[int] = []
    if is_next_wanted:
        with contextlib.suppress(RefusedError):  # the answer is saved, whatever comes next
            following = hand_out(call, 1, row["id"])
    return told({"ok": True, "next": following[0] if following else None})


def seen(call: Call) -> Reply:
    """Store from when until when an image was shown, and with which proposal."""
    person, row, body = call.someone, call.image(), call.body
    proposal = bodies.proposal(body)
    if proposal is not None:
        _check_proposal(call.reading, row, proposal)
    start, end, tab = bodies.time(body, "from"), bodies.time(body, "until"), bodies.tab(body)
    if end < start:
        raise malformed("until: it lies before from")

    def change(connection: Connection) -> None:
        note(connection, row["id"], person.id, "shown", {"tab": tab}, start)
        _note_shown(connection, row["id"], person.id, proposal)
        note(connection, row["id"], person.id, "hidden", {"tab": tab}, end)

    call.labeling.database.write(change)
    return told({"ok": True})


def _note_shown(connection: Connection, image: int, person: int, proposal: int | None) -> None:
    """Store that a proposal was shown: an image that a page loads in advance is not shown yet."""
    if proposal is not None:
        note_proposal_shown(connection, image, person, proposal)
