"""HTTP server: Starlette routes around functions of `routes_*`.

The event loop reads bodies and writes answers only. Routes run in threads, pictures in two of their
own, so that decoding never delays the saving of a stroke.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from preceptor.label import routes_images, routes_lead, routes_marks, routes_people
from preceptor.label.bodies import LARGEST
from preceptor.label.calls import Call, Labeling
from preceptor.label.database import refusal_of
from preceptor.label.people import has_link, person_by_id
from preceptor.label.sessions import Session, same
from preceptor.web.refusal import RefusedError, forbidden, malformed
from preceptor.web.replies import Reply, refused
from preceptor.web.server import http_error, read_body, response_of, with_headers

CSRF = "x-preceptor-csrf"
_OPEN_FILES = ("style.css",)  # of the page, without a session: the way in looks like the rest
Handler = Callable[[Call], Reply]
Pool = Literal["calls", "pictures"]


@dataclass(frozen=True)
class Way:
    """One route.

    Args:
        method: GET or POST.
        path: Pattern of the path.
        handler: Function that answers.
        pool: Threads in which it runs.
        entry: Whether it works without a session.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    pool: Pool = "calls"
    entry: bool = False


WAYS: list[Way] = [
    Way("GET", "/", routes_people.page, entry=True),
    Way("POST", "/enter", routes_people.enter, entry=True),
    Way("GET", "/static/{name:path}", routes_people.static, entry=True),
    Way("GET", "/api/state", routes_people.state),
    Way("POST", "/api/person", routes_people.choose),
    Way("GET", "/api/queue", routes_images.queue),
    Way("GET", "/api/images/{image}", routes_images.image),
    Way("GET", "/api/images/{image}/whole", routes_images.whole, pool="pictures"),
    Way(
        "GET",
        "/api/images/{image}/tiles/{level}/{column}/{row}",
        routes_images.tile,
        pool="pictures",
    ),
    Way("POST", "/api/images/{image}/open", routes_marks.open_image),
    Way("POST", "/api/images/{image}/strokes", routes_marks.strokes),
    Way("POST", "/api/images/{image}/undo", routes_marks.undo_stroke),
    Way("POST", "/api/images/{image}/redo", routes_marks.redo_stroke),
    Way("POST", "/api/images/{image}/answer", routes_marks.answer),
    Way("POST", "/api/images/{image}/seen", routes_marks.seen),
    Way("GET", "/api/lead", routes_lead.lead),
]


def application(labeling: Labeling, ways: list[Way] | None = None) -> ASGIApp:
    """ASGI application of a server.

    Args:
        labeling: State of the server.
        ways: Routes; None = all.
    """
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
    """Check the Host header.

    Raises:
        RefusedError: It is missing, twice there, or names another host (403).
    """
    if len(hosts) != 1 or not labeling.hosts.allows(headers["host"]):
        raise forbidden("this host is not served here; use the address that was printed")


def check_change(
    labeling: Labeling, headers: dict[str, str], session: Session | None, way: Way
) -> None:
    """Check the headers of a request that changes something.

    Raises:
        RefusedError: The origin, the session, the token or the type is wrong.
    """
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
