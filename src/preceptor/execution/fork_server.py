"""Fork server: a process that has imported torch once and forks the workers of a study.

A forked worker starts in milliseconds and shares the memory of all libraries. A fork copies only
the thread that calls it, so that locks of other threads would stay locked for ever, and a process
that has used a GPU cannot be forked. Therefore the server does nothing but import: it has one
thread, which it verifies, runs no operation of torch, and is not used for steps on GPUs.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from preceptor.utils.process import bulk_import, environment_of

AVAILABLE = sys.platform == "linux"
"""Elsewhere the libraries of the system start threads of their own."""
# One thread: memory that Arrow's allocator frees is returned by the thread that frees it.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
_NUMBER = struct.Struct("<q")
_FORK, _REAP = b"f", b"r"


class ForkServerError(Exception):
    """The server has ended, or cannot be forked."""


class ForkServer:
    """Process that forks workers, whose steps use one thread and no GPU.

    It is started without waiting for its imports, and ends with this process, as its workers do.

    Args:
        target: Module and function of a worker; called with its pipe.
    """

    def __init__(self, target: tuple[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._requests, theirs = socket.socketpair()
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_serve, args=(theirs, lifeline, *target), daemon=True
        )
        with environment_of(**_ENVIRONMENT):
            self._process.start()
        theirs.close()
        lifeline.close()

    def fork(self) -> tuple[ForkedProcess, Connection]:
        """Fork a worker; returns its process and this end of its pipe.

        Raises:
            ForkServerError: The server has ended, or has more than one thread.
        """
        ours, theirs = Pipe()
        try:
            socket.send_fds(self._requests, [_FORK], [theirs.fileno()])
            pid = self._answer()
        except (OSError, ForkServerError) as error:
            ours.close()
            raise ForkServerError("the fork server has ended") from error
        finally:
            theirs.close()
        if not pid:
            ours.close()
            raise ForkServerError("the fork server has several threads")
        return ForkedProcess(pid, self), ours

    def reap(self, pid: int) -> int | None:
        """Exit code of a worker that ends; None if the server has ended before."""
        try:
            self._requests.sendall(_REAP + _NUMBER.pack(pid))
            return self._answer()
        except (OSError, ForkServerError):
            return None

    def end(self) -> None:
        """Kill the server; its workers go on until this process ends or kills them."""
        self._process.kill()
        self._process.join()
        self._requests.close()

    def _answer(self) -> int:
        found = _received(self._requests, _NUMBER.size)
        if len(found) < _NUMBER.size:
            raise ForkServerError
        number: int = _NUMBER.unpack(found)[0]
        return number


class ForkedProcess:
    """Worker that a fork server has forked, with the part of `multiprocessing.Process` in use."""

    def __init__(self, pid: int, server: ForkServer) -> None:
        self.pid = pid
        self.exitcode: int | None = None
        self._server = server
        self._ended = False

    def kill(self) -> None:
        """Kill the process; until it is joined, its number belongs to no other process."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def join(self) -> None:
        """Wait for the end of the process."""
        if not self._ended:
            self.exitcode = self._server.reap(self.pid)
            self._ended = True


def _received(requests: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or fewer at the end of the connection."""
    found = b""
    while len(found) < size and (more := requests.recv(size - len(found))):
        found += more
    return found


def _serve(requests: socket.socket, lifeline: Connection, module: str, function: str) -> None:
    """Fork a worker or wait for the end of one for each request, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    with _ending_with(lifeline), bulk_import():
        target = getattr(importlib.import_module(module), function)
    while True:
        kind, handles, _, _ = socket.recv_fds(requests, 1, 1)
        if not kind:
            return
        if kind == _REAP:
            (pid,) = _NUMBER.unpack(_received(requests, _NUMBER.size))
            _, status = os.waitpid(pid, 0)
            answer = os.waitstatus_to_exitcode(status)
        elif len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
            answer = 0
        else:
            answer = os.fork()
            if not answer:
                requests.close()
                _work(Connection(handles[0]), lifeline, target)
        for handle in handles:
            os.close(handle)
        requests.sendall(_NUMBER.pack(answer))


@contextlib.contextmanager
def _ending_with(lifeline: Connection) -> Iterator[None]:
    """Context in which a thread ends this process with its parent; the thread ends with it."""
    stop, done = Pipe(duplex=False)

    def follow() -> None:
        if lifeline in wait([lifeline, stop]):
            os._exit(1)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        done.close()
        thread.join()
        stop.close()
        # For Python the thread has ended earlier than for the kernel.
        while Path(f"/proc/self/task/{thread.native_id}").exists():
            time.sleep(0.001)


def _work(pipe: Connection, lifeline: Connection, target: Any) -> None:
    """Serve as a forked worker, and end this process with the parent of the server."""
    code = 0
    try:
        with _ending_with(lifeline):
            target(pipe)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
