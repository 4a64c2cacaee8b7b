"""Routes that change marks: opening, strokes, undo, redo, answers, times."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection
from typing import TypeVar

from preceptor.label.answers import JUDGED, Answer, has_work, save_answer, settle_answer
from preceptor.label.bodies import (
    AnswerBody,
    OpenBody,
    SeenBody,
    StrokeBody,
    TurnBody,
    checked,
)
from preceptor.label.calls import Call
from preceptor.label.database import Connection
from preceptor.label.events import note, note_proposal_shown
from preceptor.label.handing_out import hand_out, sized
from preceptor.label.queue import still_open
from preceptor.label.runs import check_tight, from_text
from preceptor.label.strokes import Stroke, redo, save_stroke, undo
from preceptor.web.refusal import RefusedError, conflict, malformed
from preceptor.web.replies import Reply, told

T = TypeVar("T")

ELSEWHERE = "this image is open in another tab; continue there, or take it over"


def open_image(call: Call) -> Reply:
    """Open an image in a tab, renew it and the next ones, take it over, or close it."""
    person, row, labeling = call.someone, call.image(), call.labeling
    body = checked(OpenBody, call.body)
    if body.close:
        labeling.tabs.close(row["id"], person.id, body.tab)
        return told({"ok": True})
    if not labeling.tabs.open(row["id"], person.id, body.tab, take=body.take):
        raise conflict(ELSEWHERE)
    with labeling.handing_out:
        kept = still_open(call.reading, person.id, labeling.claims, body.line)
        labeling.claims.take([row["id"], *kept], person.id)
    return told({"ok": True, "line": kept})


def _own_tab(call: Call, image: int, tab: str) -> None:
    """Check that no other tab of the person has the image, which this one has from now on."""
    if not call.labeling.tabs.open(image, call.someone.id, tab):
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
    person, body = call.someone, checked(StrokeBody, call.body)
    row = _marked_row(call)
    if row["width"] is None:
        raise conflict("this image cannot be read, and cannot be marked")
    stroke = _stroke_of(body, call.labeling.settings.classes, row["width"], row["height"])
    _check_version(call.reading, row, stroke.version)
    if stroke.proposal is not None:
        _check_proposal(call.reading, row, stroke.proposal)
    _own_tab(call, row["id"], body.tab)
    number, saved = _change_marks(
        call, row["id"], lambda connection: save_stroke(connection, row["id"], person.id, stroke)
    )
    return told({"number": number, "saved_at": saved})


def _stroke_of(body: StrokeBody, classes: Collection[str], width: int, height: int) -> Stroke:
    """Stroke on an image of a size."""
    if (body.width, body.height) != (width, height):
        raise conflict(
            f"the image has {width} × {height} pixels, and this was drawn on {body.width} × "
            f"{body.height}: its file was replaced"
        )
    if body.class_ not in classes:
        raise malformed(f"class: one of {', '.join(classes)} is needed")
    for key, end in (("x", body.x), ("y", body.y), ("w", body.x + body.w), ("h", body.y + body.h)):
        if end > (width if key in "xw" else height) - (key in "xy"):
            raise malformed(f"{key}: the rectangle lies beside the image")
    try:
        code = from_text(body.runs)
        check_tight(code, body.w, body.h)
    except ValueError as error:
        raise malformed(f"runs: {error}") from error
    values = body.model_dump(exclude={"tab", "width", "height", "runs"})
    return Stroke(**values, runs=code)


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
    person, row, body = call.someone, call.image(), checked(TurnBody, call.body)
    _own_tab(call, row["id"], body.tab)
    _change_marks(call, row["id"], lambda writing: change(writing, row["id"], person.id, body.uuid))
    return told({"ok": True})


def undo_stroke(call: Call) -> Reply:
    """Undo the newest stroke."""
    return _turn(call, undo)


def redo_stroke(call: Call) -> Reply:
    """Redo the stroke that was undone last."""
    return _turn(call, redo)


def answer(call: Call) -> Reply:
    """Save an answer, and hand out the next image unless `next` is false."""
    person, body = call.someone, checked(AnswerBody, call.body)
    row, settings = _marked_row(call), call.labeling.settings
    if body.label is not None and body.label not in settings.labels:
        raise malformed(f"label: one of {', '.join(settings.labels) or 'nothing'} is needed")
    given = Answer(
        body.state,
        body.label,
        body.certainty,
        body.seconds,
        body.proposal,
        settings.proposals,
        body.version,
    )
    if given.state in JUDGED and row["width"] is None:
        raise conflict("this image cannot be read, and cannot be judged")
    if given.state != "skipped":
        _check_version(call.reading, row, given.version)
    if given.proposal is not None:
        _check_proposal(call.reading, row, given.proposal)
    _own_tab(call, row["id"], body.tab)

    def change(connection: Connection) -> None:
        _note_shown(connection, row["id"], person.id, given.proposal)
        save_answer(connection, row["id"], person.id, given)

    call.labeling.database.write(change)
    call.labeling.claims.drop(row["id"], person.id)
    following: list[int] = []
    if body.next:
        with contextlib.suppress(RefusedError):  # the answer is saved, whatever comes next
            following = hand_out(call, 1, row["id"])
    return told({"ok": True, "next": following[0] if following else None})


def seen(call: Call) -> Reply:
    """Store from when until when an image was shown, and with which proposal."""
    person, row, body = call.someone, call.image(), checked(SeenBody, call.body)
    if body.proposal is not None:
        _check_proposal(call.reading, row, body.proposal)
    if body.until < body.from_:
        raise malformed("until: it lies before from")

    def change(connection: Connection) -> None:
        note(connection, row["id"], person.id, "shown", {"tab": body.tab}, body.from_)
        _note_shown(connection, row["id"], person.id, body.proposal)
        note(connection, row["id"], person.id, "hidden", {"tab": body.tab}, body.until)

    call.labeling.database.write(change)
    return told({"ok": True})


def _note_shown(connection: Connection, image: int, person: int, proposal: int | None) -> None:
    """Store that a proposal was shown: an image that a page loads in advance is not shown yet."""
    if proposal is not None:
        note_proposal_shown(connection, image, person, proposal)
