"""Functions that answer the requests of the page."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from preceptor.deploy import http
from preceptor.deploy.http import Reply
from preceptor.label import calls, marks, queue
from preceptor.label import sources as files
from preceptor.label.calls import Call, Person, Session
from preceptor.label.db import Connection, read_setting

_LISTED = 10  # images that cannot be shown, at the end
SMALL = 256  # largest side of a small picture
CELLS = 24  # images of the grid that are sent at a time
_DAMAGED = 422  # status of a picture that cannot be shown


def next_images(call: Call) -> Reply:
    """Next open images of the person, or earlier ones."""
    person, labeling = call.someone, call.labeling
    count = min(call.asked("count", calls.MOST_IMAGES) or 6, calls.MOST_IMAGES)
    before, after = call.asked("before"), call.asked("after")
    if before is not None:
        numbers = queue.answered_before(call.reading, person.id, before, count)
    elif "rest" in call.query:  # at the end: what cannot be had is told
        numbers = []
    else:
        numbers = calls.hand_out(call, count, after)
    images = []
    for row in calls.sized(labeling, call.reading, numbers):
        images.append({"id": row["id"]})
    if images:
        return http.told({"images": images})
    hidden = queue.not_shown(call.reading)
    problems = [{"name": PurePath(path).name, "problem": why} for path, why in hidden[:_LISTED]]
    reserved = queue.count_reserved(call.reading, person.id, labeling.claims)
    told = {"images": images, "not_shown": len(hidden), "problems": problems}
    return http.told(told | {"reserved": reserved})


def image(call: Call) -> Reply:
    """One image with the person's own strokes and answer."""
    person = call.someone
    labeling = call.labeling
    (row,) = calls.sized(labeling, call.reading, [call.image()["id"]])
    return http.told(
        {key: row[key] for key in ("id", "label", "split", "width", "height", "problem")}
        | {
            "name": PurePath(row["path"]).name,
            "version": row["looked_at"],
            "strokes": marks.strokes_of(call.reading, row["id"], person.id),
            "answer": marks.answer_of(call.reading, row["id"], person.id),
        }
    )


def picture(call: Call, *, small: bool = False) -> Reply:
    """The picture as a JPEG file, or a small one."""
    labeling = call.labeling
    (row,) = calls.sized(labeling, call.reading, [call.image()["id"]])
    if row["problem"] is not None:
        return http.refused(_DAMAGED, row["problem"])
    path = calls.path_of(labeling, row)
    try:
        tag = f'"{row["id"]}-{files.version_of(path)}{"s" if small else ""}"'
        headers = {"etag": tag, "cache-control": "private, max-age=60"}
        if tag in call.headers.get("if-none-match", ""):
            return Reply(b"", "image/jpeg", 304, headers)
        content = files.small(path, SMALL) if small else files.picture(path)
    except files.PictureError as error:
        calls.note_problem(labeling, row, error)
        return http.refused(_DAMAGED, str(error))
    return Reply(content, "image/jpeg", 200, headers)


def open_image(call: Call) -> Reply:
    """Keep an image and the next ones for the person, or give them back when a tab is closed."""
    person, row, labeling = call.someone, call.image(), call.labeling
    body = calls.checked(calls.OpenBody, call)
    with labeling.handing_out:
        if body.close:
            labeling.claims.drop_all(person.id)
            # What is begun stays: nobody else is to mark it again.
            queue.claim_begun(call.reading, labeling.claims, person.id)
            return http.told({"ok": True})
        # An image that the person has answered has its place already; looked at, it takes no other.
        answered = call.reading.execute(
            "SELECT 1 FROM answers WHERE image = ? AND person = ?", (row["id"], person.id)
        ).fetchone()
        kept = queue.still_open(call.reading, person.id, labeling.claims, body.line)
        labeling.claims.take([*([] if answered else [row["id"]]), *kept], person.id)
    return http.told({"ok": True, "line": kept})


def _marked_row(call: Call) -> sqlite3.Row:
    """Row of the image with its size; work on it is saved also while no image can be reached."""
    row = call.image()
    return row if row["width"] else calls.sized(call.labeling, call.reading, [row["id"]])[0]


def strokes(call: Call) -> Reply:
    """Save a stroke."""
    person, body = call.someone, calls.checked(calls.StrokeBody, call)
    row = _marked_row(call)
    if row["width"] is None:
        raise http.conflict("this image cannot be read, and cannot be marked")
    stroke = _stroke_of(body, row["width"], row["height"])
    _change_marks(
        call, row["id"], lambda writing: marks.save_stroke(writing, row["id"], person.id, stroke)
    )
    return http.told({"ok": True})


def _stroke_of(body: calls.StrokeBody, width: int, height: int) -> dict[str, Any]:
    """Columns of a stroke on an image of a size."""
    if (body.width, body.height) != (width, height):
        raise http.conflict(
            f"the image has {width} × {height} pixels, and this was drawn on {body.width} × "
            f"{body.height}: its file was replaced"
        )
    for key, end in (("x", body.x), ("y", body.y), ("w", body.x + body.w), ("h", body.y + body.h)):
        if end > (width if key in "xw" else height) - (key in "xy"):
            raise http.malformed(f"{key}: the rectangle lies beside the image")
    if body.tool == "point" and (body.w, body.h, body.erase) != (1, 1, False):
        raise http.malformed("w: a point is one pixel, which is not erased")
    try:
        code = marks.from_text(body.runs)
        if len(marks.run_lengths(code, body.w * body.h)) < 2:
            raise ValueError("no pixel is marked")
    except ValueError as error:
        raise http.malformed(f"runs: {error}") from error
    return body.model_dump(exclude={"tab", "width", "height"}) | {"runs": code}


def _change_marks(call: Call, image: int, change: Callable[[Connection], None]) -> None:
    """Change marks in a transaction; an image whose answer does not fit them is kept for one."""
    person = call.someone.id

    def changed(connection: Connection) -> bool:
        change(connection)
        return marks.settle_answer(connection, image, person)

    if call.labeling.database.write(changed):
        call.labeling.claims.take([image], person)


def turn_stroke(call: Call, *, undone: bool) -> Reply:
    """Undo the newest stroke, or redo the one that was undone last."""
    person, row, body = call.someone, call.image(), calls.checked(calls.TurnBody, call)
    _change_marks(
        call,
        row["id"],
        lambda writing: marks.turn(writing, row["id"], person.id, body.uuid, undone=undone),
    )
    return http.told({"ok": True})


def answer(call: Call) -> Reply:
    """Save an answer."""
    person, body = call.someone, calls.checked(calls.AnswerBody, call)
    row, settings = _marked_row(call), call.labeling.settings
    if body.label is not None and body.label not in settings.labels:
        raise http.malformed(f"label: one of {', '.join(settings.labels) or 'nothing'} is needed")
    given = body.model_dump(exclude={"tab"})
    if body.state in marks.JUDGED and row["width"] is None:
        raise http.conflict("this image cannot be read, and cannot be judged")

    call.labeling.database.write(
        lambda writing: marks.save_answer(writing, row["id"], person.id, given)
    )
    call.labeling.claims.drop(row["id"], person.id)
    return http.told({"ok": True})


_HTML = "text/html; charset=utf-8"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>preceptor label</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{head}
<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/style.css"></head>
<body class="entry"><main><h1>preceptor label</h1>{main}</main></body></html>
"""
_NO_WAY = (
    "<p>This page needs the link that <code>preceptor label</code> has printed in the terminal: "
    "open it once in this browser.</p>"
)


def page(call: Call) -> Reply:
    """The page; with a token of a link, the way in."""
    if "token" in call.query:
        session = _by_token(call, call.query["token"])
        if session is None:
            return _entry("<p>This link is not valid (any more).</p>")
        headers = {"set-cookie": set_cookie(call, session)}
        if call.headers.get("sec-fetch-site") in ("none", "same-origin"):
            return _html(b"", 303, headers | {"location": "/"})
        # A strict cookie is not sent along a redirection that began on another site, and without
        # encryption browsers do not say where it began.
        head = '<meta http-equiv="refresh" content="0; url=/">'
        main = '<p><a href="/">Continue</a></p>'
        return _html(_PAGE.format(head=head, main=main).encode(), 200, headers)
    if call.session is None:
        return _entry("")
    return _html(call.labeling.static["index.html"].read_bytes(), 200)


def _html(content: bytes, status: int, headers: Mapping[str, str] = {}) -> Reply:
    return Reply(content, _HTML, status, {**headers, "cache-control": "no-store"})


def _by_token(call: Call, token: str) -> Session | None:
    if not calls.same(token, call.labeling.keys.token):
        return None
    return call.session or Session(0, secrets.token_hex(16))  # open tabs keep their tokens


def _entry(note: str) -> Reply:
    return _html(_PAGE.format(head="", main=note + _NO_WAY).encode(), 403)


def set_cookie(call: Call, session: Session) -> str:
    """Header that sets the cookie of a session."""
    value = call.labeling.keys.cookie(session)
    lasting = f"Max-Age={30 * 86_400}"
    return f"{call.labeling.cookie_name}={value}; Path=/; HttpOnly; SameSite=Strict; {lasting}"


def choose(call: Call) -> Reply:
    """Choose or make the person of the session."""
    session = call.session
    assert session is not None
    name = calls.check_name(http.parse(call.content).get("name"))
    person = calls.person_by_name(call.reading, name)
    if person is None:
        person = call.labeling.database.write(lambda writing: calls.add_person(writing, name))
    headers = {"set-cookie": set_cookie(call, replace(session, person=person.id))}
    return http.told({"person": _shown(person)}, headers=headers)


def _shown(person: Person) -> dict[str, Any]:
    return {"id": person.id, "name": person.name}


def state(call: Call) -> Reply:
    """State of the whole, as the page shows it."""
    labeling, person, session = call.labeling, call.person, call.session
    assert session is not None
    settings, shown = labeling.settings, None
    images, done = queue.count_done(call.reading)
    totals = {"images": images, "done": done, "mine_done": 0, "mine_open": 0}
    totals["examined"] = queue.count_examined(call.reading)
    if person is not None:
        shown = _shown(person)
        (totals["mine_done"],) = call.reading.execute(
            "SELECT count(*) FROM answers WHERE person = ?", (person.id,)
        ).fetchone()
        totals["mine_open"] = queue.count_open(call.reading, person.id)
    people = call.reading.execute("SELECT name FROM people ORDER BY name").fetchall()
    return http.told(
        {
            "person": shown,
            "people": [row[0] for row in people],
            "database": read_setting(call.reading, "identity"),
            "quick": labeling.quick,
            "radius": marks.POINT_RADIUS,
            "labels": list(settings.labels),
            "csrf": labeling.keys.csrf(session),
            "totals": totals,
        }
    )


def static(call: Call) -> Reply:
    """File of the page, from the list that was made at the start."""
    file = call.labeling.static.get(call.path["name"])
    if file is None:
        raise http.unknown("there is no such file")
    return Reply(file.read_bytes(), STATIC[file.suffix], 200, {"cache-control": "no-cache"})


STATIC = {
    ".html": _HTML,
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
"""Kinds of files that are served, by suffix."""


def grid(call: Call) -> Reply:
    """Images by path, with the person's own marks."""
    person, reading = call.someone.id, call.reading
    kind = call.query.get("filter", "")
    if kind not in queue.FILTERS:
        raise http.malformed(f"filter: one of {', '.join(queue.FILTERS)} is needed")
    total, numbers = queue.found_images(reading, kind, person, call.asked("after") or 0, CELLS)
    cells = [
        {key: row[key] for key in ("id", "problem")}
        | {"name": PurePath(row["path"]).name, "version": row["looked_at"]}
        | marks.small_work(reading, row, person, SMALL)
        for row in calls.rows_of(reading, numbers)
    ]
    return http.told({"total": total, "images": cells})
