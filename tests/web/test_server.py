"""Sockets of the HTTP servers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from preceptor.errors import InputError
from preceptor.web.server import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_are_sent_at_once(host: str) -> None:
    """Connections have no Nagle delay: a body does not wait for the receipt of the head."""
    try:
        listening = listen(host, 0)
    except InputError as error:
        pytest.skip(f"{error} (no IPv6 here)")
    settings = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = writer.get_extra_info("socket")
        settings.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def talk() -> None:
        async with await asyncio.start_server(connected, sock=listening):
            reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            await reader.read()
            writer.close()

    asyncio.run(talk())
    assert settings
    assert settings[0] != 0


def test_a_port_that_is_taken_is_refused_with_its_number() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"^--host 127\.0\.0\.1 --port {port}: .*; choose another$"
        ):
            listen("127.0.0.1", port)
