"""Fork server: workers that are forked, end, are killed, and end with the process that asked."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from preceptor.execution.fork_server import AVAILABLE, ForkServer, ForkServerError
from tests.commands import HANGS

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="workers are forked on Linux only")

TARGET = '''
import os, sys

served = 0

def serve(pipe):
    """Answer with the process and the number of words so far; a number is the exit code."""
    global served
    while True:
        word = pipe.recv()
        if isinstance(word, int):
            os._exit(word)
        served += 1
        pipe.send((os.getpid(), os.getppid(), served))
'''


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    (tmp_path / "forked_target.py").write_text(TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    server = ForkServer(("forked_target", "serve"))
    yield server
    server.end()


def test_workers_are_processes_of_their_own(server: ForkServer) -> None:
    (one, its), (other, theirs) = server.fork(), server.fork()
    for process, pipe in ((one, its), (other, theirs)):
        for count in (1, 2):
            pipe.send("word")
            pid, parent, served = pipe.recv()
            assert (pid, served) == (process.pid, count)
            assert parent != os.getpid(), "forked by the server"
    its.send(3)
    one.join()
    other.kill()
    other.join()
    assert (one.exitcode, other.exitcode) == (3, -signal.SIGKILL)
    other.kill()  # its number may belong to another process by now, which is left alone
    for pipe in (its, theirs):
        with pytest.raises((EOFError, OSError)):
            pipe.recv()


def test_a_worker_whose_pipe_is_closed_ends(server: ForkServer) -> None:
    process, pipe = server.fork()
    pipe.close()
    process.join()
    assert process.exitcode == 1  # its target lets the end of the pipe through


def test_a_server_that_has_threads_is_not_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_thread.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def serve(pipe):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    server = ForkServer(("with_thread", "serve"))
    with pytest.raises(ForkServerError, match="several threads"):
        server.fork()
    server.end()


def test_a_server_that_dies_leaves_its_workers(server: ForkServer) -> None:
    process, pipe = server.fork()
    pipe.send("word")
    _, parent, _ = pipe.recv()
    os.kill(parent, signal.SIGKILL)

    def fork_while_it_lives() -> None:
        while True:  # the signal may come after the answer
            server.fork()

    with pytest.raises(ForkServerError, match="has ended"):
        fork_while_it_lives()
    pipe.send("word")
    assert pipe.recv()[2] == 2
    process.kill()
    process.join()
    assert process.exitcode is None  # nobody knows


def test_a_target_that_cannot_be_imported_ends_the_server() -> None:
    server = ForkServer(("no_such_module", "serve"))
    with pytest.raises(ForkServerError, match="has ended"):
        server.fork()
    server.end()


def test_no_worker_outlives_the_process_that_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "forked_target.py").write_text(TARGET)
    (tmp_path / "parent.py").write_text(
        "from preceptor.execution.fork_server import ForkServer\n"
        "if __name__ == '__main__':\n"
        "    server = ForkServer(('forked_target', 'serve'))\n"
        "    workers = [server.fork() for _ in range(2)]\n"
        "    workers[0][1].send('word')\n"
        "    _, server_id, _ = workers[0][1].recv()\n"
        "    print(server_id, *(process.pid for process, _ in workers), flush=True)\n"
        "    input()\n"
    )
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "parent.py"],
                cwd=tmp_path,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        assert parent.stdout is not None
        handles = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(handles) == 3
        parent.kill()
        for handle in handles:
            watched = select.poll()
            watched.register(handle, select.POLLIN)
            assert watched.poll(1000 * HANGS)
            os.close(handle)
