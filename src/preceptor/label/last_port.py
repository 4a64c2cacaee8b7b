"""Port of the page, which stays the same from start to start.

Browsers keep what is not saved yet, sessions and links by the address of the page.
"""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

from preceptor.errors import InputError
from preceptor.label import settings as stored
from preceptor.label.database import connect, told_errors
from preceptor.web.server import listen


def listen_as_before(path: Path, host: str, port: int | None) -> tuple[socket.socket, int | None]:
    """Socket that listens at a port, or at that of the last start.

    The port is stored, unless it stands in for that of the last start.

    Args:
        path: Database.
        host: Address or name.
        port: Port; 0 = any free one; None = that of the last start if it is free, else any free
            one.

    Returns:
        Socket, and the port of the last start if it is taken, else None.

    Raises:
        InputError: The port is in use, or the host is not of this machine.
    """
    with told_errors(path), closing(connect(path)) as connection:
        last: int | None = stored.get(connection, "port")
        if port is None and last is not None:
            try:
                return listen(host, last), None
            except InputError:
                return listen(host, 0), last
        at = listen(host, port or 0)
        try:
            stored.put(connection, "port", at.getsockname()[1])
        except BaseException:
            at.close()
            raise
        return at, None
