"""Sockets of the HTTP servers."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from preceptor.deploy.http_server import listen, server_of
from preceptor.errors import InputError


def test_half_sent_heads_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a request on the same connection, and not while a body is sent."""
    monkeypatch.setattr("preceptor.deploy.http_server.HEAD_SECONDS", 0.5)

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def talk() -> None:
        listening = listen("127.0.0.1", 0)
        server = server_of(app)
        running = asyncio.create_task(server.serve([listening]))
        place = listening.getsockname()[:2]
        for before in (b"", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"):
            reader, writer = await asyncio.open_connection(*place)
            writer.write(before + b"GET / HTTP/1.1\r\nhost:")
            answer = await reader.read()  # until the server closes
            assert answer.startswith(b"HTTP/1.1 204") == bool(before)
            writer.close()
        reader, writer = await asyncio.open_connection(*place)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n")
        await asyncio.sleep(1)
        writer.write(b"hi")
        assert (await reader.readline()).startswith(b"HTTP/1.1 204")
        writer.close()
        server.should_exit = True
        await running

    asyncio.run(talk())


def test_a_port_that_is_taken_is_refused_with_its_number() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"^--host 127\.0\.0\.1 --port {port}: .*; choose another$"
        ):
            listen("127.0.0.1", port)
