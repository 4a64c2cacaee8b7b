"""Program `preceptor` for shell scripts, whose processes share one import of torch.

A script of ten commands would import torch ten times. The program that is put on the path here
hands its arguments and streams to the tests, which run the command in a forked process.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.forked import Forked, command

_LENGTH = struct.Struct("<q")
_PROGRAM = f"""\
#!{sys.executable} -IS
import json, os, socket, struct, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))
    request = json.dumps([os.getcwd(), sys.argv[1:]]).encode()
    socket.send_fds(asked, [struct.pack("<q", len(request))], [0, 1, 2])
    asked.sendall(request)
    (code,) = struct.unpack("<q", asked.recv(8, socket.MSG_WAITALL))
sys.exit(code)
"""


@contextlib.contextmanager
def program_folder() -> Iterator[Path]:
    """Folder with the program, for the beginning of PATH; it works within the context."""
    with (
        tempfile.TemporaryDirectory() as name,  # short: a socket's path has at most 107 bytes
        socket.socket(socket.AF_UNIX) as listening,
    ):
        program = Path(name) / "preceptor"
        program.write_text(_PROGRAM)
        program.chmod(0o755)
        listening.bind(f"{name}/socket")
        listening.listen()
        threading.Thread(target=_accept, args=(listening,), daemon=True).start()
        try:
            yield program.parent
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket) -> None:
    one_at_a_time = threading.Lock()
    with contextlib.suppress(OSError):  # it was shut down
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_run, args=(connection, one_at_a_time), daemon=True).start()


def _run(connection: socket.socket, one_at_a_time: threading.Lock) -> None:
    with connection:
        head, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        folder, arguments = json.loads(connection.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL))
        stdin, stdout, stderr = streams
        with one_at_a_time:  # starting; the processes run side by side
            process = Forked(
                command, arguments, cwd=folder, stdin=stdin, stdout=stdout, stderr=stderr
            )
        for stream in streams:
            os.close(stream)
        connection.sendall(_LENGTH.pack(process.wait()))
