"""Application and start of the server: routes, checks of requests, database, port."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
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
from preceptor.label import calls, db, routes, sources
from preceptor.label.calls import Call, Keys, Labeling, Session
from preceptor.label.db import Connection, Database, LabelSettings, connect
from preceptor.label.queue import claim_begun
from preceptor.label.routes import STATIC
from preceptor.label.sources import Row, Source, forget_sizes, look_again


def listen_as_before(path: Path, host: str, port: int | None) -> tuple[socket.socket, int | None]:
    """Socket that listens at a port, by default at that of the last start, or else any free one.

    The second value is the port of the last start if it is taken.
    """
    with db.told_errors(path), closing(connect(path)) as connection:
        last: int | None = db.read_setting(connection, "port")
        if port is None and last is not None:
            try:
                return listen(host, last), None
            except InputError:
                return listen(host, 0), last
        at = listen(host, port or 0)
        try:
            db.write_setting(connection, "port", at.getsockname()[1])
        except BaseException:
            at.close()
            raise
        return at, None


CSRF = "x-preceptor-csrf"


@dataclass(frozen=True)
class Way:
    """One route."""

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[[Call], Reply]
    pool: Literal["calls", "pictures"] = "calls"  # threads in which it runs
    entry: bool = False  # whether it needs no session


WAYS: list[Way] = [
    Way("GET", "/", routes.page, entry=True),
    Way("GET", "/static/{name:path}", routes.static, entry=True),
    Way("GET", "/api/state", routes.state),
    Way("POST", "/api/person", routes.choose),
    Way("GET", "/api/queue", routes.next_images),
    Way("GET", "/api/images/{image}", routes.image),
    Way("GET", "/api/images/{image}/whole", routes.picture, pool="pictures"),
    Way("POST", "/api/images/{image}/open", routes.open_image),
    Way("POST", "/api/images/{image}/strokes", routes.strokes),
    Way("POST", "/api/images/{image}/undo", partial(routes.turn_stroke, undone=True)),
    Way("POST", "/api/images/{image}/redo", partial(routes.turn_stroke, undone=False)),
    Way("POST", "/api/images/{image}/answer", routes.answer),
    Way("GET", "/api/images/{image}/small", partial(routes.picture, small=True), pool="pictures"),
    Way("GET", "/api/grid", routes.grid),
]


def application(labeling: Labeling) -> ASGIApp:
    """ASGI application of a server."""
    pools = {"calls": labeling.calls, "pictures": labeling.decoding}
    routes = [
        Route(way.path, partial(_answer, labeling, pools[way.pool], way), methods=[way.method])
        for way in WAYS
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
        refusal = db.refusal_of(error) if isinstance(error, sqlite3.Error) else None
        if refusal is None:
            logging.getLogger("preceptor.label").exception("an answer failed")
            refusal = RefusedError(500, "something went wrong; the terminal says what")
        reply = refused(refusal.status, str(refusal))
    return response_of(reply)


async def _reply(labeling: Labeling, pool: ThreadPoolExecutor, way: Way, request: Request) -> Reply:
    headers = dict(request.headers)
    if len(request.headers.getlist("host")) != 1 or not labeling.hosts.allows(headers["host"]):
        raise forbidden("this host is not served here; use the address that was printed")
    session = labeling.keys.session(request.cookies.get(labeling.cookie_name, ""))
    content = b""
    if way.method == "POST":
        _check_change(labeling, headers, session)
        content = await read_body(request, calls.LARGEST)
    elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and way.path != "/":
        raise forbidden("another site asks for this page")
    # The way in looks like the rest of the page.
    is_open = way.entry and request.path_params.get("name", "style.css") == "style.css"
    if session is None and not is_open:
        raise forbidden("there is no session; open the link again")

    def run() -> Reply:
        reading = labeling.database.reading
        person = None if session is None else calls.person_by_id(reading, session.person)
        path, query = request.path_params, dict(request.query_params)
        return way.handler(Call(labeling, session, person, path, query, content, headers))

    return await asyncio.get_running_loop().run_in_executor(pool, run)


def _check_change(labeling: Labeling, headers: dict[str, str], session: Session | None) -> None:
    """Check the headers of a request that changes something."""
    if not labeling.hosts.allows_origin(headers.get("origin", ""), headers["host"]):
        raise forbidden("the request comes from another page")
    if session is None:
        raise forbidden("there is no session; open the link again")
    if not calls.same(headers.get(CSRF, ""), labeling.keys.csrf(session)):
        raise forbidden("the token of the page is missing; load the page again")
    if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise malformed("the body must be application/json")


PAGE = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Prepared:
    """Database that is ready to be served."""

    path: Path
    source: Source
    settings: LabelSettings
    changes: dict[str, int] | None  # see `take_in`; None = the source is as it was
    first: bool  # whether the database is new


def prepare(
    path: Path, source: Source, given: dict[str, Any], rows: Sequence[Row] | None = None
) -> Prepared:
    """Create or open a database, and bring its images and settings to those of this start."""
    first = not path.exists()
    connection = connect(path, create=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        changes = None
        if db.read_setting(connection, "digest") != source.digest:
            rows = sources.rows_of(source) if rows is None else rows
            changes = sources.take_in(connection, source, rows)
        sources.remember_place(connection, source, path)
        before = db.read_settings(connection)
        settings = _checked(replace(before, **given), connection, source)
        if settings != before or first:
            for key, value in asdict(settings).items():
                db.write_setting(connection, key, value)
        sources.arrange(connection, settings)
        if db.read_setting(connection, "identity") is None:
            db.write_setting(connection, "identity", secrets.token_hex(16))
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        if first:
            path.unlink(missing_ok=True)
        raise
    connection.close()
    return Prepared(path, source, settings, changes, first)


def _checked(settings: LabelSettings, connection: Connection, source: Source) -> LabelSettings:
    if settings.labels and not source.is_folder:
        raise InputError("--labels: a manifest has labels; name a folder of images to choose them")
    known = {row[0] for row in connection.execute("SELECT DISTINCT split FROM images")}
    if gone := [split for split in settings.splits if split not in known]:
        raise InputError(
            f"--splits: there is no image of the split {gone[0]!r}; known: "
            f"{', '.join(sorted(known - {''})) or 'none'}"
        )
    return settings


def labeling_of(prepared: Prepared, hosts: Hosts, *, quick: bool = False) -> Labeling:
    """State of a server."""
    database = Database(prepared.path)
    labeling = Labeling(
        database,
        prepared.source,
        prepared.settings,
        Keys(db.session_secret(prepared.path)),
        hosts,
        {file.name: file for file in PAGE.iterdir() if file.suffix in STATIC},
        quick,
    )
    database.write(look_again)
    database.write(forget_sizes)
    claim_begun(database.reading, labeling.claims)
    return labeling
