"""HTTP server of an ASGI application: bodies within limits, headers of security, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preceptor.deploy.http import RefusedError, Reply, refused
from preceptor.errors import InputError
from preceptor.utils.process import handling

_BODY_SECONDS = 60.0
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Not no-referrer, with which browsers send a form of the page with the origin null.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def response_of(reply: Reply) -> Response:
    """Response of Starlette with the content of an answer."""
    return Response(reply.content, reply.status, {**reply.headers, "content-type": reply.kind})


async def read_body(
    request: Request,
    largest: int,
    *,
    seconds: float = _BODY_SECONDS,
    take: Callable[[int], None] = lambda count: None,
) -> bytes:
    """Body of a request; a larger one (413) or a slower one (408) is refused, part by part."""
    too_large = RefusedError(413, f"the body is larger than {_size(largest)}")
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and (len(stated) > 12 or int(stated) > largest):
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > largest:
                    raise too_large
                take(len(part))
                parts.append(part)
    except TimeoutError as error:
        raise RefusedError(408, "the body took too long") from error
    return b"".join(parts)


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count:,} bytes"


async def http_error(request: Request, error: Exception) -> Response:
    """Answer to a request that no route takes; a handler of exceptions of Starlette."""
    assert isinstance(error, HTTPException)
    words = {404: "there is no such page", 405: "this method is not possible here"}
    reply = refused(error.status_code, words.get(error.status_code, "the request is not possible"))
    return response_of(replace(reply, headers={**reply.headers, **(error.headers or {})}))


def with_headers(app: ASGIApp) -> ASGIApp:
    """Application whose answers all have the headers of security."""
    added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await app(scope, receive, sending)

    return wrapped


def listen(host: str, port: int) -> socket.socket:
    """Socket that listens at a host and a port; port 0 = any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends the head and the body of an answer at once; otherwise a
    # body waits up to 40 ms for the receipt of the head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise InputError(
            f"--host {host} --port {port}: {error.strerror or error}; choose another"
        ) from error
    return listener


def server_of(app: ASGIApp, *, stop_seconds: int = 5) -> uvicorn.Server:
    """Server of an application, which no request is logged by."""
    config = uvicorn.Config(
        app,
        log_level="error",  # warnings are a line for each malformed request
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=stop_seconds,
        timeout_keep_alive=30,
        http="h11",
        proxy_headers=False,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Server that leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Context without handlers: uvicorn's would raise the signals again after the end."""
        yield


def serve(
    app: ASGIApp,
    at: socket.socket,
    *,
    stop_seconds: int = 5,
    stopping: Callable[[], None] | None = None,
) -> None:
    """Serve until the process is interrupted or told to end, and open answers are sent."""
    server = server_of(app, stop_seconds=stop_seconds)

    def stop(*_: object) -> None:
        server.should_exit = True
        if stopping is not None:
            stopping()

    with handling((signal.SIGINT, signal.SIGTERM), stop):
        asyncio.run(server.serve([at]))
