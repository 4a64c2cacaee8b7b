"""Application and start of the server: routes, checks of requests, database, port."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from preceptor.deploy.http import Hosts, RefusedError, Reply, forbidden, malformed, refused
from preceptor.deploy.http_server import http_error, listen, read_body, response_of, with_headers
from preceptor.errors import InputError
from preceptor.label import routes
from preceptor.label.calls import LARGEST, Access, Call, Labeling
from preceptor.label.db import (
    Connection,
    Database,
    LabelSettings,
    connect,
    read_setting,
    read_settings,
    refusal_of,
    session_secret,
    told_errors,
    write_setting,
    write_settings,
)
from preceptor.label.images import Pictures, look_again
from preceptor.label.people import Keys, Session, add_person, has_link, key_hash, person_by_id, same
from preceptor.label.queue import claim_begun
from preceptor.label.routes import STATIC_SUFFIXES
from preceptor.label.sources import (
    Changes,
    Row,
    Source,
    arrange,
    is_current,
    remember_place,
    rows_of,
    take_in,
)
from preceptor.utils.files import default_cache_dir


def listen_as_before(path: Path, host: str, port: int | None) -> tuple[socket.socket, int | None]:
    """Socket that listens at a port, or at that of the last start."""
    with told_errors(path), closing(connect(path)) as connection:
        last: int | None = read_setting(connection, "port")
        if port is None and last is not None:
            try:
                return listen(host, last), None
            except InputError:
                return listen(host, 0), last
        at = listen(host, port or 0)
        try:
            write_setting(connection, "port", at.getsockname()[1])
        except BaseException:
            at.close()
            raise
        return at, None


CSRF = "x-preceptor-csrf"
_OPEN_FILES = ("style.css",)  # of the page, without a session: the way in looks like the rest
Handler = Callable[[Call], Reply]
Pool = Literal["calls", "pictures"]


@dataclass(frozen=True)
class Way:
    """One route."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    pool: Pool = "calls"  # threads in which it runs
    entry: bool = False


WAYS: list[Way] = [
    Way("GET", "/", routes.page, entry=True),
    Way("POST", "/enter", routes.enter, entry=True),
    Way("GET", "/static/{name:path}", routes.static, entry=True),
    Way("GET", "/api/state", routes.state),
    Way("POST", "/api/person", routes.choose),
    Way("GET", "/api/queue", routes.queue),
    Way("GET", "/api/images/{image}", routes.image),
    Way("GET", "/api/images/{image}/whole", routes.whole, pool="pictures"),
    Way(
        "GET",
        "/api/images/{image}/tiles/{level}/{column}/{row}",
        routes.tile,
        pool="pictures",
    ),
    Way("POST", "/api/images/{image}/open", routes.open_image),
    Way("POST", "/api/images/{image}/strokes", routes.strokes),
    Way("POST", "/api/images/{image}/undo", routes.undo_stroke),
    Way("POST", "/api/images/{image}/redo", routes.redo_stroke),
    Way("POST", "/api/images/{image}/answer", routes.answer),
    Way("POST", "/api/images/{image}/seen", routes.seen),
    Way("GET", "/api/lead", routes.lead),
]


def application(labeling: Labeling, ways: list[Way] | None = None) -> ASGIApp:
    """ASGI application of a server."""
    pools = {"calls": labeling.calls, "pictures": labeling.decoding}
    routes = [
        Route(way.path, partial(_answer, labeling, pools[way.pool], way), methods=[way.method])
        for way in ways or WAYS
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    app.router.redirect_slashes = False
    return with_headers(app)


async def _answer(
    labeling: Labeling, pool: ThreadPoolExecutor, way: Way, request: Request
) -> Response:
    try:
        reply = await _reply(labeling, pool, way, request)
    except RefusedError as error:
        reply = refused(error.status, str(error))
    except ClientDisconnect:
        reply = refused(400, "the connection was closed")
    except Exception as error:
        told = refusal_of(error) if isinstance(error, sqlite3.Error) else None
        if told is None:
            logging.getLogger("preceptor.label").exception("an answer failed")
            told = RefusedError(500, "something went wrong; the terminal says what")
        reply = refused(told.status, str(told))
    return response_of(reply)


async def _reply(labeling: Labeling, pool: ThreadPoolExecutor, way: Way, request: Request) -> Reply:
    headers = {name.lower(): value for name, value in request.headers.items()}
    check_host(labeling, headers, request.headers.getlist("host"))
    session = _session(labeling, headers)
    content = b""
    if way.method == "POST":
        check_change(labeling, headers, session, way)
        content = await read_body(request, LARGEST)
    elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and way.path != "/":
        raise forbidden("another site asks for this page")
    if session is None and not way.entry:
        raise forbidden("there is no session; open the link again")
    if (
        session is None
        and way.path.startswith("/static")
        and (request.path_params.get("name") not in _OPEN_FILES)
    ):
        raise forbidden("there is no session; open the link again")

    def run() -> Reply:
        reading = labeling.database.reading
        person, known = None, session
        if (
            session is not None
            and session.role == "linked"
            and not (labeling.access == "links" and has_link(reading, session.person))
        ):
            known = None
            if not way.entry:
                raise forbidden("your link is not valid any more; ask for a new one")
        if known is not None and known.person:
            person = person_by_id(reading, known.person)
        call = Call(
            labeling,
            known,
            person,
            request.path_params,
            dict(request.query_params),
            content,
            headers,
            "" if request.client is None else request.client.host,
        )
        return way.handler(call)

    return await asyncio.get_running_loop().run_in_executor(pool, run)


def check_host(labeling: Labeling, headers: dict[str, str], hosts: list[str]) -> None:
    """Check the Host header."""
    if len(hosts) != 1 or not labeling.hosts.allows(headers["host"]):
        raise forbidden("this host is not served here; use the address that was printed")


def check_change(
    labeling: Labeling, headers: dict[str, str], session: Session | None, way: Way
) -> None:
    """Check the headers of a request that changes something."""
    if not labeling.hosts.allows_origin(headers.get("origin", ""), headers["host"]):
        raise forbidden("the request comes from another page")
    if way.entry:
        return
    if session is None:
        raise forbidden("there is no session; open the link again")
    if not same(headers.get(CSRF, ""), labeling.keys.csrf(session)):
        raise forbidden("the token of the page is missing; load the page again")
    if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise malformed("the body must be application/json")


def _session(labeling: Labeling, headers: dict[str, str]) -> Session | None:
    # Not http.cookies, which gives up all cookies at one of another program that it does not like.
    for cookie in headers.get("cookie", "").split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == labeling.cookie_name:
            return labeling.keys.session(value)
    return None


PAGE = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Prepared:
    """Database that is ready to be served."""

    path: Path
    source: Source
    settings: LabelSettings
    changes: Changes | None  # what a changed manifest did; None = it is as it was
    first: bool  # whether the database is new


def prepare(
    path: Path,
    source: Source,
    given: dict[str, Any],
    rows: Sequence[Row] | None = None,
) -> Prepared:
    """Create or open a database, and bring its images and settings to those of this start."""
    first = not path.exists()
    connection = connect(path, create=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        changes = None
        if not is_current(connection, source):
            rows = rows_of(source) if rows is None else rows
            chosen = _labels_are_chosen(connection)
            changes = take_in(connection, source, rows)
            if not source.is_folder and not chosen:
                labels = sorted({row.label for row in rows})
                write_setting(connection, "labels", labels)
        remember_place(connection, source, path)
        before = read_settings(connection)
        settings = _checked(replace(before, **given), connection)
        if settings.overlap == 1 and given.get("overlap_share"):
            raise InputError(
                "--overlap-share: it is the share of the images that several people mark, and one "
                "person marks each; add --overlap 2"
            )
        if settings != before or first:
            write_settings(connection, settings)
        arrange(connection, settings)
        session_secret(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        if first:
            path.unlink(missing_ok=True)
        raise
    connection.close()
    return Prepared(path, source, settings, changes, first)


def _labels_are_chosen(connection: Connection) -> bool:
    """Whether the labels among which people choose are others than those of the images."""
    listed = connection.execute("SELECT DISTINCT label FROM images WHERE listed = 1")
    known = set(read_setting(connection, "labels", ()))
    return bool(known) and known != {row[0] for row in listed}


def _checked(settings: LabelSettings, connection: Connection) -> LabelSettings:
    used = {row[0] for row in connection.execute("SELECT DISTINCT class FROM strokes")}
    if gone := sorted(used - set(settings.classes)):
        raise InputError(
            f"--classes: the class {gone[0]!r} has marks already; name it too, or use another "
            "--database"
        )
    known = {row[0] for row in connection.execute("SELECT DISTINCT split FROM images")}
    if gone := [split for split in settings.splits if split not in known]:
        raise InputError(
            f"--splits: there is no image of the split {gone[0]!r}; known: "
            f"{', '.join(sorted(known - {''})) or 'none'}"
        )
    return settings


def labeling_of(
    prepared: Prepared,
    hosts: Hosts,
    access: Access = "local",
    password: str = "",
    name: str = "",
    cache: Path | None = None,
) -> Labeling:
    """State of a server."""
    database = Database(prepared.path)
    reading = database.reading
    lead = database.write(lambda writing: add_person(writing, name, lead=True)) if name else None
    labeling = Labeling(
        database,
        prepared.source,
        prepared.settings,
        Keys(session_secret(reading), password),
        hosts,
        Pictures((cache or default_cache_dir()) / "label"),
        page_files(PAGE),
        access,
        password,
        0 if lead is None else lead.id,
    )
    database.write(lambda writing: look_again(writing, labeling.source.root))
    claim_begun(reading, labeling.claims)
    labeling.builder.submit(labeling.pictures.remove_unused)
    return labeling


def links_of(labeling: Labeling, names: Sequence[str]) -> dict[str, str]:
    """Tokens of the links of people, who are added if necessary; others have no link any more."""

    def change(connection: Connection) -> dict[str, str]:
        connection.execute("UPDATE people SET key_hash = NULL")
        found = {}
        for name in names:
            person = add_person(connection, name)
            token = labeling.keys.person_token(person.id, person.name)
            connection.execute(
                "UPDATE people SET key_hash = ? WHERE id = ?", (key_hash(token), person.id)
            )
            found[person.name] = token
        return found

    return labeling.database.write(change)


def page_files(folder: Path) -> dict[str, Path]:
    """Files of the page by name."""
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix in STATIC_SUFFIXES
    }
