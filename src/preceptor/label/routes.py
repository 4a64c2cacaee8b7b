"""Functions that answer the requests of the page."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any, TypeVar

from preceptor.deploy.http import (
    RefusedError,
    Reply,
    conflict,
    forbidden,
    malformed,
    parse,
    refused,
    told,
    unknown,
)
from preceptor.label.calls import (
    MOST_IMAGES,
    AnswerBody,
    Call,
    Labeling,
    OpenBody,
    Person,
    SeenBody,
    Session,
    StrokeBody,
    TurnBody,
    add_person,
    check_name,
    checked,
    hand_out,
    key_hash,
    leads,
    link_of,
    note_problem,
    number_of,
    path_of,
    person_by_name,
    same,
    sized,
)
from preceptor.label.db import Connection
from preceptor.label.images import PictureError, version_of, view_of
from preceptor.label.marks import (
    JUDGED,
    answer_of,
    from_text,
    note,
    note_proposal_shown,
    run_lengths,
    save_answer,
    save_stroke,
    settle_answer,
    strokes_of,
    turn,
)
from preceptor.label.proposals import LEVEL
from preceptor.label.queue import (
    answered_before,
    count_done,
    count_open,
    figures,
    not_shown,
    skipped,
    still_open,
)
from preceptor.version import __version__

_LISTED = 10  # images that cannot be shown, at the end
_DAMAGED = 422  # status of a picture that cannot be shown


def queue(call: Call) -> Reply:
    """Next open images of the person, or earlier ones."""
    person, labeling = call.someone, call.labeling
    count = min(call.asked("count", MOST_IMAGES) or 6, MOST_IMAGES)
    before, after = call.asked("before"), call.asked("after")
    if before is not None:
        numbers = answered_before(call.reading, person.id, before, count)
    elif "skipped" in call.query:
        numbers = skipped(call.reading, person.id, count)
    else:
        numbers = hand_out(call, count, after)
    images = []
    for row in sized(labeling, call.reading, numbers):
        images.append({key: row[key] for key in ("id", "width", "height")} | _view(row))
        if images[-1]["view"] == "tiles" and not row["problem"]:
            labeling.builder.submit(_build, labeling, row)
    if images and "skipped" not in call.query:
        return told({"images": images})
    hidden = not_shown(call.reading)
    problems = [{"name": PurePath(path).name, "problem": why} for path, why in hidden[:_LISTED]]
    return told({"images": images, "not_shown": len(hidden), "problems": problems})


def _build(labeling: Labeling, row: sqlite3.Row) -> None:
    try:
        labeling.pictures.pyramid(path_of(labeling, row))
    except PictureError as error:
        note_problem(labeling, row, error)
    except (OSError, RefusedError):  # told when a tile is asked for
        pass


def _view(row: sqlite3.Row) -> dict[str, Any]:
    view, levels = view_of(row["width"] or 1, row["height"] or 1)
    return {"view": view, "levels": levels}


def image(call: Call) -> Reply:
    """One image with the person's own strokes and answer, and the proposal."""
    person = call.someone
    labeling = call.labeling
    (row,) = sized(labeling, call.reading, [call.image()["id"]])
    proposal = None
    if row["problem"] is None and labeling.proposals is not None:
        proposal = labeling.proposals.shown(row, call.asked("level", 100) or LEVEL)
    elsewhere = labeling.tabs.elsewhere(row["id"], person.id, call.query.get("tab", ""))
    return told(
        {key: row[key] for key in ("id", "label", "split", "width", "height", "problem")}
        | _view(row)
        | {
            "name": PurePath(row["path"]).name,
            "version": row["looked_at"],
            "strokes": strokes_of(call.reading, row["id"], person.id),
            "answer": answer_of(call.reading, row["id"], person.id),
            "proposal": proposal,
            "open_elsewhere": elsewhere,
        }
    )


def picture(call: Call) -> Reply:
    """The picture as one JPEG file, or a tile of its pyramid."""
    labeling = call.labeling
    place = [call.number(key, 10_000) for key in ("level", "column", "row") if key in call.path]
    view = "tiles" if place else "whole"
    (row,) = sized(labeling, call.reading, [call.image()["id"]])
    if row["problem"] is not None:
        return refused(_DAMAGED, row["problem"])
    if _view(row)["view"] != view:
        raise unknown(f"this image is sent as {_view(row)['view']}")
    path = path_of(labeling, row)
    try:
        tag = f'"{version_of(path)}{"-".join(map(str, place))}"'
        headers = {"etag": tag, "cache-control": "private, max-age=60"}
        if tag in call.headers.get("if-none-match", ""):
            return Reply(b"", "image/jpeg", 304, headers)
        made = labeling.pictures
        content = made.tile(path, *place) if place else made.whole(path)
    except PictureError as error:
        note_problem(labeling, row, error)
        return refused(_DAMAGED, str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RefusedError(507, "the disk is full: free some space for tiles") from error
        raise RefusedError(507, "the folder of tiles cannot be written") from error
    if content is None:
        raise unknown("there is no such tile")
    return Reply(content, "image/jpeg", 200, headers)


T = TypeVar("T")


def open_image(call: Call) -> Reply:
    """Open an image in a tab, renew it and the next ones, take it over, or close it."""
    person, row, labeling = call.someone, call.image(), call.labeling
    body = checked(OpenBody, call)
    if body.close:
        labeling.tabs.close(row["id"], person.id, body.tab)
        return told({"ok": True})
    _own_tab(call, row["id"], body.tab, take=body.take)
    with labeling.handing_out:
        kept = still_open(call.reading, person.id, labeling.claims, body.line)
        labeling.claims.take([row["id"], *kept], person.id)
    return told({"ok": True, "line": kept})


def _own_tab(call: Call, image: int, tab: str, *, take: bool = False) -> None:
    """Check that no other tab of the person has the image, which this one has from now on."""
    if not call.labeling.tabs.open(image, call.someone.id, tab, take=take):
        raise conflict("this image is open in another tab; continue there, or take it over")


def _marked_row(call: Call) -> sqlite3.Row:
    """Row of the image; what people did is saved also while no image can be reached."""
    (row,) = sized(call.labeling, call.reading, [call.image()["id"]], need_files=False)
    return row


def strokes(call: Call) -> Reply:
    """Save a stroke."""
    person, body = call.someone, checked(StrokeBody, call)
    row = _marked_row(call)
    if row["width"] is None:
        raise conflict("this image cannot be read, and cannot be marked")
    stroke = _stroke_of(body, call.labeling.settings.classes, row["width"], row["height"])
    _check_proposal(call.reading, row, body.proposal)
    _own_tab(call, row["id"], body.tab)
    number, saved = _change_marks(
        call, row["id"], lambda writing: save_stroke(writing, row["id"], person.id, stroke)
    )
    return told({"number": number, "saved_at": saved})


def _stroke_of(
    body: StrokeBody, classes: Collection[str], width: int, height: int
) -> dict[str, Any]:
    """Columns of a stroke on an image of a size."""
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
        if len(run_lengths(code, body.w * body.h)) < 2:
            raise ValueError("no pixel is marked")
    except ValueError as error:
        raise malformed(f"runs: {error}") from error
    return body.model_dump(by_alias=True, exclude={"tab", "width", "height"}) | {"runs": code}


def _change_marks(call: Call, image: int, change: Callable[[Connection], T]) -> T:
    """Change marks in a transaction; an image whose answer does not fit them is kept for one."""
    person = call.someone.id

    def changed(connection: Connection) -> tuple[T, bool]:
        return change(connection), settle_answer(connection, image, person)

    value, is_aside = call.labeling.database.write(changed)
    if is_aside:
        call.labeling.claims.take([image], person)
    return value


def _check_proposal(connection: Connection, row: sqlite3.Row, proposal: int | None) -> None:
    known = connection.execute(
        "SELECT 1 FROM proposals WHERE id = ? AND image = ?", (proposal, row["id"])
    ).fetchone()
    if proposal is not None and known is None:
        raise malformed("proposal: there is no such proposal for this image")


def turn_stroke(call: Call, *, undone: bool) -> Reply:
    """Undo the newest stroke, or redo the one that was undone last."""
    person, row, body = call.someone, call.image(), checked(TurnBody, call)
    _own_tab(call, row["id"], body.tab)
    _change_marks(
        call,
        row["id"],
        lambda writing: turn(writing, row["id"], person.id, body.uuid, undone=undone),
    )
    return told({"ok": True})


def answer(call: Call) -> Reply:
    """Save an answer, and hand out the next image unless `next` is false."""
    person, body = call.someone, checked(AnswerBody, call)
    row, settings = _marked_row(call), call.labeling.settings
    if body.label is not None and body.label not in settings.labels:
        raise malformed(f"label: one of {', '.join(settings.labels) or 'nothing'} is needed")
    given = body.model_dump(exclude={"tab", "next"})
    if body.state in JUDGED and row["width"] is None:
        raise conflict("this image cannot be read, and cannot be judged")
    _check_proposal(call.reading, row, body.proposal)
    _own_tab(call, row["id"], body.tab)

    def change(connection: Connection) -> None:
        note_proposal_shown(connection, row["id"], person.id, body.proposal)
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
    person, row, body = call.someone, call.image(), checked(SeenBody, call)
    _check_proposal(call.reading, row, body.proposal)
    if body.until < body.from_:
        raise malformed("until: it lies before from")

    def change(connection: Connection) -> None:
        note(connection, row["id"], person.id, "shown", {"tab": body.tab}, body.from_)
        note_proposal_shown(connection, row["id"], person.id, body.proposal)
        note(connection, row["id"], person.id, "hidden", {"tab": body.tab}, body.until)

    call.labeling.database.write(change)
    return told({"ok": True})


_HTML = "text/html; charset=utf-8"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>preceptor label</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{head}
<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/style.css"></head>
<body class="entry"><main><h1>preceptor label</h1>{main}</main></body></html>
"""
_NO_WAY = {
    "local": "<p>This page needs the link that <code>preceptor label</code> has printed in the "
    "terminal: open it once in this browser.</p>",
    "links": "<p>This page needs your own link: ask whoever has started "
    "<code>preceptor label</code> for it.</p>",
}


def page(call: Call) -> Reply:
    """The page; with a token of a link, the way in."""
    if "token" in call.query:
        session = _by_token(call, call.query["token"])
        if session is None:
            return _entry(call, "<p>This link is not valid (any more).</p>")
        headers = {"set-cookie": set_cookie(call, session)}
        if call.headers.get("sec-fetch-site") in ("none", "same-origin"):
            return _html(b"", 303, headers | {"location": "/"})
        # A strict cookie is not sent along a redirection that began on another site, and without
        # encryption browsers do not say where it began.
        head = '<meta http-equiv="refresh" content="0; url=/">'
        main = '<p><a href="/">Continue</a></p>'
        return _html(_PAGE.format(head=head, main=main).encode(), 200, headers)
    if call.session is None:
        return _entry(call, "")
    return _html(call.labeling.static["index.html"].read_bytes(), 200)


def _html(content: bytes, status: int, headers: Mapping[str, str] = {}) -> Reply:
    return Reply(content, _HTML, status, {**headers, "cache-control": "no-store"})


def _by_token(call: Call, token: str) -> Session | None:
    keys = call.labeling.keys
    if same(token, keys.lead_token):
        lead, session = call.labeling.lead, call.session
        if session is not None and session.role == "lead" and lead in (0, session.person):
            return session  # tabs that are open keep their tokens
        own = 0 if call.person is None else call.person.id
        return keys.new_session("lead", lead or own)
    number = number_of(token.partition("-")[0], 2**53) or 0
    stored = link_of(call.reading, number)
    if call.labeling.access != "links" or stored is None or not same(key_hash(token), stored):
        return None
    return keys.new_session("linked", number)


def _entry(call: Call, note: str) -> Reply:
    main = note + _NO_WAY[call.labeling.access]
    return _html(_PAGE.format(head="", main=main).encode(), 403)


def set_cookie(call: Call, session: Session) -> str:
    """Header that sets the cookie of a session."""
    value = call.labeling.keys.cookie(session)
    return f"{call.labeling.cookie_name}={value}; Path=/; HttpOnly; SameSite=Strict"


def choose(call: Call) -> Reply:
    """Choose or make the person of the session."""
    session = call.session
    assert session is not None
    if session.role == "linked":
        raise forbidden("this link belongs to one person; another person has another link")
    name = check_name(parse(call.content).get("name"))
    person = person_by_name(call.reading, name)
    if person is None:
        person = call.labeling.database.write(lambda writing: add_person(writing, name))
    headers = {"set-cookie": set_cookie(call, replace(session, person=person.id))}
    return told({"person": _shown(session, person)}, headers=headers)


def _shown(session: Session, person: Person) -> dict[str, Any]:
    return {"id": person.id, "name": person.name, "lead": leads(session, person)}


def state(call: Call) -> Reply:
    """State of the whole, as the page shows it."""
    labeling, person, session = call.labeling, call.person, call.session
    assert session is not None
    settings, shown = labeling.settings, None
    images, done = count_done(call.reading)
    totals = {"images": images, "done": done, "mine_done": 0, "mine_open": 0}
    if person is not None:
        shown = _shown(session, person)
        (totals["mine_done"],) = call.reading.execute(
            "SELECT count(*) FROM answers WHERE person = ? AND state != 'skipped'", (person.id,)
        ).fetchone()
        totals["mine_open"] = count_open(call.reading, person.id, labeling.claims)
    people = call.reading.execute("SELECT name FROM people ORDER BY name").fetchall()
    others = [row[0] for row in people] if session.role != "linked" else []
    return told(
        {
            "person": shown,
            "people": others,
            "fixed": session.role == "linked",
            "database": labeling.keys.database_id,
            "title": labeling.source.place.name,
            "classes": list(settings.classes),
            "labels": list(settings.labels),
            "csrf": labeling.keys.csrf(session),
            "totals": totals,
            "keys_version": 1,
            "version": __version__,
        }
    )


def static(call: Call) -> Reply:
    """File of the page, from the list that was made at the start."""
    file = call.labeling.static.get(call.path["name"])
    if file is None:
        raise unknown("there is no such file")
    return Reply(file.read_bytes(), STATIC[file.suffix], 200, {"cache-control": "no-cache"})


STATIC = {
    ".html": _HTML,
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
"""Kinds of files that are served, by suffix."""


_ONE = threading.Lock()  # the comparisons are made once, however many pages ask


def lead(call: Call) -> Reply:
    """Progress, times and agreement of everybody."""
    if not leads(call.session, call.person):
        raise forbidden("this page is for whoever leads; open the link of the terminal")
    with _ONE:
        return told(figures(call.reading, call.labeling.comparisons))
