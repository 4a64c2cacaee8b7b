"""Routes of people: the way in, the state, the choice of a name."""

from __future__ import annotations

import html
from urllib.parse import parse_qs

from preceptor.label.calls import Call, leads, number_of
from preceptor.label.people import (
    add_person,
    check_name,
    key_hash,
    names,
    person_by_id,
    person_by_name,
)
from preceptor.label.proposals import newest_teacher
from preceptor.label.queue import count_open
from preceptor.label.sessions import Session, same
from preceptor.version import __version__
from preceptor.web.refusal import RefusedError, forbidden, malformed
from preceptor.web.replies import Reply, told

_HTML = "text/html; charset=utf-8"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>preceptor label</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{head}
<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/style.css"></head>
<body class="entry"><main><h1>preceptor label</h1>{main}</main></body></html>
"""
_LOGIN = """{note}<form method="post" action="/enter">
<p><label for="name">Your name</label> <input id="name" name="name" required maxlength="60"
autocomplete="username"></p>
<p><label for="password">Password</label> <input id="password" name="password" type="password"
required autocomplete="current-password"></p>
<p><button type="submit">Enter</button></p></form>"""
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
            return Reply(b"", _HTML, 303, {**headers, "location": "/", "cache-control": "no-store"})
        # A strict cookie is not sent along a redirection that began on another site, and without
        # encryption browsers do not say where it began.
        head = '<meta http-equiv="refresh" content="0; url=/">'
        main = '<p><a href="/">Continue</a></p>'
        content = _PAGE.format(head=head, main=main).encode()
        return Reply(content, _HTML, 200, {**headers, "cache-control": "no-store"})
    if call.session is None:
        return _entry(call, "")
    return Reply(
        call.labeling.static["index.html"].read_bytes(), _HTML, 200, {"cache-control": "no-store"}
    )


def _by_token(call: Call, token: str) -> Session | None:
    keys = call.labeling.keys
    if same(token, keys.lead_token):
        lead, session = call.labeling.lead, call.session
        if session is not None and session.role == "lead" and lead in (0, session.person):
            return session  # tabs that are open keep their tokens
        own = 0 if call.person is None else call.person.id
        return keys.new_session("lead", lead or own)
    number = number_of(token.partition("-")[0], 2**53)
    person_ = None if number is None else person_by_id(call.reading, number)
    if call.labeling.access != "links" or person_ is None:
        return None
    stored = call.reading.execute(
        "SELECT key_hash FROM people WHERE id = ?", (person_.id,)
    ).fetchone()[0]
    if stored is None or not same(key_hash(token), stored):
        return None
    return keys.new_session("linked", person_.id)


def _entry(call: Call, note: str, status: int = 403) -> Reply:
    access = call.labeling.access
    main = _LOGIN.format(note=note) if access == "password" else note + _NO_WAY[access]
    content = _PAGE.format(head="", main=main).encode()
    return Reply(content, _HTML, status, {"cache-control": "no-store"})


def set_cookie(call: Call, session: Session) -> str:
    """Header that sets the cookie of a session."""
    value = call.labeling.keys.cookie(session)
    return f"{call.labeling.cookie_name}={value}; Path=/; HttpOnly; SameSite=Strict"


def enter(call: Call) -> Reply:
    """The way in with a name and the password."""
    labeling = call.labeling
    if labeling.access != "password":
        raise forbidden("there is no password; use the link")
    try:
        form = parse_qs(call.content.decode("utf-8"), strict_parsing=True, max_num_fields=4)
        name, password = (form[key][0] for key in ("name", "password"))
    except (ValueError, KeyError) as error:
        raise malformed("a name and a password are needed") from error
    if not labeling.tries.are_left(call.address):
        return _entry(call, "<p>Too many wrong passwords; wait a minute.</p>", 429)
    if not same(password, labeling.password):
        labeling.tries.add_wrong(call.address)
        return _entry(call, "<p>The password is wrong.</p>")
    try:
        name = check_name(name)
    except RefusedError as error:
        return _entry(call, f"<p>{html.escape(str(error))}.</p>", error.status)
    person = labeling.database.write(lambda connection: add_person(connection, name))
    session = labeling.keys.new_session("guest", person.id)
    headers = {"set-cookie": set_cookie(call, session), "location": "/"}
    return Reply(b"", _HTML, 303, {**headers, "cache-control": "no-store"})


def choose(call: Call) -> Reply:
    """Choose or make the person of the session."""
    session = call.session
    assert session is not None
    if session.role == "linked":
        raise forbidden("this link belongs to one person; another person has another link")
    name = check_name(call.body.get("name"))
    person = person_by_name(call.reading, name)
    if person is None:
        person = call.labeling.database.write(lambda writing: add_person(writing, name))
    headers = {"set-cookie": set_cookie(call, session.of(person.id))}
    shown = {"id": person.id, "name": person.name, "lead": leads(session, person)}
    return told({"person": shown}, headers=headers)


def state(call: Call) -> Reply:
    """State of the whole, as the page shows it."""
    labeling, person, session = call.labeling, call.person, call.session
    assert session is not None
    shown = None
    totals = {"images": 0, "done": 0, "mine_done": 0, "mine_open": 0}
    totals["images"], totals["done"] = call.reading.execute(
        "SELECT count(*), coalesce(sum(places <= 0), 0) FROM images WHERE listed = 1 AND asked = 1"
    ).fetchone()
    if person is not None:
        shown = {"id": person.id, "name": person.name, "lead": call.leads}
        totals["mine_done"] = call.reading.execute(
            "SELECT count(*) FROM answers WHERE person = ? AND state != 'skipped'", (person.id,)
        ).fetchone()[0]
        totals["mine_open"] = count_open(call.reading, person.id, labeling.claims)
    settings = labeling.settings
    others = names(call.reading) if session.role != "linked" else []
    return told(
        {
            "person": shown,
            "people": others,
            "fixed": session.role == "linked",
            "database": labeling.keys.database_id,
            "title": labeling.source.place.name,
            "classes": list(settings.classes),
            "labels": list(settings.labels),
            "proposals": settings.proposals,
            "csrf": labeling.keys.csrf(session),
            "totals": totals,
            "teacher": newest_teacher(call.reading),
            "least_overlap": settings.least_overlap,
            "keys_version": 1,
            "version": __version__,
        }
    )


def static(call: Call) -> Reply:
    """File of the page, from the list that was made at the start."""
    name = call.path["name"]
    file = call.labeling.static.get(name)
    if file is None:
        raise RefusedError(404, "there is no such file")
    kind = _KINDS[file.suffix]
    return Reply(file.read_bytes(), kind, 200, {"cache-control": "no-cache"})


_KINDS = {
    ".html": _HTML,
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
STATIC_SUFFIXES = frozenset(_KINDS)
"""Suffixes of files that are served."""
