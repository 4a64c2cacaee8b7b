"""A server in a thread, and its answers: shared by the tests of `serve` and of `label`."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from preceptor.deploy.http_server import server_of
from tests.commands import HANGS


@dataclass(frozen=True)
class Told:
    """Answer of the server."""

    status: int
    content: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, answer: http.client.HTTPResponse) -> Told:
        """Answer that is read to its end."""
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return cls(answer.status, answer.read(), headers)

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> str:
        """The reason of a refusal, which must be one line."""
        error = self.json["error"]
        assert isinstance(error, str)
        assert "\n" not in error
        return error


@contextlib.contextmanager
def in_thread(app: ASGIApp, at: socket.socket, stop_seconds: int = 5) -> Iterator[None]:
    """Context in which an application is served at a socket."""
    server = server_of(app, stop_seconds=stop_seconds)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([at])), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(HANGS)
        assert not thread.is_alive()


def exchanged(address: str, request: bytes, *, whole: bool) -> bytes:
    """Whole answer to a request as it is; b"" if the server closes the connection.

    `whole` says whether the server finds the end of the request; else it need not wait for more.
    """
    host, port = address.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=HANGS) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    return answer
