"""A command that ends with the process that has started it."""

from __future__ import annotations

from preceptor.runtime.tied_command import start_tied
from preceptor.version import __version__
from tests.commands import HANGS


def test_it_runs_a_module_and_ends_when_the_pipe_is_closed() -> None:
    with start_tied(["http.server", "--bind", "127.0.0.1", "0"]) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            server.stdin.close()
            assert server.wait(HANGS) == 1
        finally:
            server.kill()


def test_it_has_the_output_and_the_code_of_the_module() -> None:
    with start_tied(["preceptor", "--version"]) as done:
        assert done.stdout is not None
        assert done.stdout.read() == f"{__version__}\n"
        assert done.wait(HANGS) == 0
    with start_tied(["json.tool", "there is no such file"]) as failed:
        assert failed.wait(HANGS) != 0
