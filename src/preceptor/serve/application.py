"""ASGI application of a service: routes, refusals, the page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from preceptor.serve.api import HealthAnswer, openapi
from preceptor.serve.metrics import CONTENT_TYPE
from preceptor.serve.service import BusyError, Service
from preceptor.version import __version__
from preceptor.web.refusal import RefusedError, unknown
from preceptor.web.replies import Reply, refused, told
from preceptor.web.server import http_error, read_body, response_of, with_headers

PAGE = Path(__file__).parent / "static"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_PREDICT = "/predict"

Handler = Callable[[Request], Awaitable[Reply]]
Access = Literal["all", "key"]


def application(service: Service) -> ASGIApp:
    """ASGI application of a service."""
    routes = _Routes(service)
    ways: list[tuple[str, str, Handler, Access]] = [
        (_PREDICT, "POST", routes.predict, "key"),
        ("/models", "GET", routes.models, "key"),
        ("/metrics", "GET", routes.metrics, "key"),
        ("/healthz", "GET", routes.health, "all"),
        ("/readyz", "GET", routes.readiness, "all"),
        ("/openapi.json", "GET", routes.document, "all"),
        ("/", "GET", routes.page, "all"),
        ("/static/{name}", "GET", routes.static, "all"),
    ]
    app = Starlette(
        routes=[
            Route(path, routes.wrapped(path, handler, access), methods=[method])
            for path, method, handler, access in ways
        ],
        exception_handlers={HTTPException: http_error},
    )
    app.router.redirect_slashes = False
    return with_headers(app)


class _Routes:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._files = {file.name: file.read_bytes() for file in sorted(PAGE.iterdir())}
        self._document = openapi(service.settings, keys=service.keys is not None)

    def wrapped(
        self, path: str, handler: Handler, access: Access
    ) -> Callable[[Request], Awaitable[Response]]:
        """Route that checks the access, and turns refusals into answers."""
        service = self._service

        async def route(request: Request) -> Response:
            started = time.monotonic()
            try:
                if path not in ("/healthz", "/readyz"):
                    headers = {key.lower(): value for key, value in request.headers.items()}
                    service.check_host(request.headers.getlist("host"), headers)
                    if access == "key":
                        service.check_key(headers)
                reply = await handler(request)
            except RefusedError as error:
                reply = _refusal(error)
            except ClientDisconnect:
                reply = refused(400, "the connection was closed")
            except Exception:
                logging.getLogger("preceptor.serve").exception("an answer failed")
                reply = refused(500, "something went wrong; the log of the server says what")
            service.figures.requests.add(path, str(reply.status))
            if path == _PREDICT:
                service.figures.seconds.observe(time.monotonic() - started)
            response = response_of(reply)
            if service.stopping:
                response.headers["connection"] = "close"
            return response

        return route

    async def predict(self, request: Request) -> Reply:
        service = self._service
        if service.stopping:
            raise RefusedError(503, "the server is stopping; try again on another one")
        wish = service.wish_of(request.query_params.multi_items())
        with service.body_room() as room:
            body = await read_body(request, service.settings.body, take=room.take)
            kind = request.headers.get("content-type", "")
            work = asyncio.ensure_future(service.predict(wish, kind, body))
            gone = asyncio.ensure_future(_gone(request))
            try:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise ClientDisconnect
                content = work.result()
            finally:
                for task in (work, gone):
                    task.cancel()
        return Reply(content, headers={"cache-control": "no-store"})

    async def models(self, request: Request) -> Reply:
        return _typed(self._service.models())

    async def metrics(self, request: Request) -> Reply:
        text = self._service.metrics()
        return Reply(text.encode(), CONTENT_TYPE, headers={"cache-control": "no-store"})

    async def health(self, request: Request) -> Reply:
        return _typed(HealthAnswer(status="ok", version=__version__))

    async def readiness(self, request: Request) -> Reply:
        return _typed(self._service.readiness(), 503 if self._service.stopping else 200)

    async def document(self, request: Request) -> Reply:
        return told(self._document)

    async def page(self, request: Request) -> Reply:
        return self._file("index.html")

    async def static(self, request: Request) -> Reply:
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Reply:
        if name not in self._files:
            raise unknown("there is no such page")
        kind = _KINDS[Path(name).suffix]
        return Reply(self._files[name], kind, headers={"cache-control": "no-cache"})


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _typed(answer: BaseModel, status: int = 200) -> Reply:
    content = answer.model_dump_json().encode()
    return Reply(content, status=status, headers={"cache-control": "no-store"})


def _refusal(error: RefusedError) -> Reply:
    """Answer that says why a request was not carried out, in one line."""
    reply = refused(error.status, str(error))
    headers = dict(reply.headers)
    if isinstance(error, BusyError):
        headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="preceptor"'
    return Reply(reply.content, reply.kind, reply.status, headers)
