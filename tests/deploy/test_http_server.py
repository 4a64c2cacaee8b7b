"""Sockets of the HTTP servers."""

from __future__ import annotations

import pytest

from preceptor.deploy.http_server import listen
from preceptor.errors import InputError


def test_a_port_that_is_taken_is_refused_with_its_number() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"^--host 127\.0\.0\.1 --port {port}: .*; choose another$"
        ):
            listen("127.0.0.1", port)
