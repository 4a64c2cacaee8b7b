"""HTTP application of served models: routes, refusals, a page to try an image."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from preceptor.deploy.api import (
    HealthAnswer,
    ReadyAnswer,
    openapi,
)
from preceptor.deploy.http import (
    RefusedError,
    Reply,
    refused,
    told,
    unknown,
)
from preceptor.deploy.http_server import http_error, read_body, response_of, with_headers
from preceptor.deploy.service import Service
from preceptor.errors import InputError, is_control
from preceptor.version import __version__

PAGE = Path(__file__).parent / "static"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_LONGEST = 60  # name of a model


def model_paths(texts: Sequence[str]) -> dict[str, Path]:
    """Paths of models by name, from `PATH` or `NAME=PATH`.

    Without a name it is that of the folder, or of the file without its suffix.

    Raises:
        InputError: A name is invalid, or is there twice.

    Example:
        >>> list(model_paths(["study/best", "small=other/best", "net.onnx"]))
        ['best', 'small', 'net']
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, given, path = text.partition("=")
        # A path may contain the character itself.
        if not given or Path(text).exists():
            name, path = Path(text).absolute().name.removesuffix(".onnx"), text
        if not 1 <= len(name) <= _LONGEST or any(map(is_control, name)):
            raise InputError(f"{text}: a name of a model has 1 to {_LONGEST} characters")
        if name in found:
            raise InputError(
                f"{text}: there is another model {name!r}; give each a name: NAME={path}"
            )
        found[name] = Path(path)
    return found


def application(service: Service) -> ASGIApp:
    """ASGI application of a service: routes, refusals, the page."""
    files = {file.name: file.read_bytes() for file in sorted(PAGE.iterdir())}
    document = told(openapi(service.settings, keys=service.keys is not None))

    async def predict(request: Request) -> Reply:
        if service.stopping:
            raise RefusedError(503, "the server is stopping; try again on another one")
        wish = service.wish_of(request.query_params.multi_items())
        with service.body_room() as take:
            body = await read_body(request, service.settings.body, take=take)
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

    async def models(_: Request) -> Reply:
        return _typed(service.model_answers())

    async def metrics(_: Request) -> Reply:
        headers = {"cache-control": "no-store"}
        return Reply(service.metrics.text(), _METRICS, headers=headers)

    async def health(_: Request) -> Reply:
        return _typed(HealthAnswer(status="ok", version=__version__))

    async def readiness(_: Request) -> Reply:
        status = "stopping" if service.stopping else "ready"
        answer = ReadyAnswer(status=status, models=list(service.models))
        return _typed(answer, 503 if service.stopping else 200)

    async def openapi_document(_: Request) -> Reply:
        return document

    async def page(request: Request) -> Reply:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise unknown("there is no such page")
        kind = _KINDS[Path(name).suffix]
        return Reply(files[name], kind, headers={"cache-control": "no-cache"})

    def wrapped(
        path: str, handler: Callable[[Request], Awaitable[Reply]], key: bool
    ) -> Callable[[Request], Awaitable[Response]]:
        async def route(request: Request) -> Response:
            started = time.monotonic()
            try:
                if path not in ("/healthz", "/readyz"):
                    service.check_access(request, key=key)
                reply = await handler(request)
            except RefusedError as error:
                reply = refused(error.status, str(error), error.headers)
            except ClientDisconnect:
                reply = refused(400, "the connection was closed")
            except Exception:
                logging.getLogger("preceptor.serve").exception("an answer failed")
                reply = refused(500, "something went wrong; the log of the server says what")
            service.metrics.requests.labels(path, reply.status).inc()
            if handler is predict:
                service.metrics.seconds.observe(time.monotonic() - started)
            response = response_of(reply)
            if service.stopping:
                response.headers["connection"] = "close"
            return response

        return route

    ways: list[tuple[str, str, Callable[[Request], Awaitable[Reply]], bool]] = [
        ("POST", "/predict", predict, True),
        ("GET", "/models", models, True),
        ("GET", "/metrics", metrics, True),
        ("GET", "/healthz", health, False),
        ("GET", "/readyz", readiness, False),
        ("GET", "/openapi.json", openapi_document, False),
        ("GET", "/", page, False),
        ("GET", "/static/{name}", page, False),
    ]
    app = Starlette(
        routes=[
            Route(path, wrapped(path, one, key), methods=[way]) for way, path, one, key in ways
        ],
        exception_handlers={HTTPException: http_error},
    )
    app.router.redirect_slashes = False
    return with_headers(app)


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _typed(answer: BaseModel, status: int = 200) -> Reply:
    content = answer.model_dump_json().encode()
    return Reply(content, status=status, headers={"cache-control": "no-store"})
