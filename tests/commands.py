"""The `preceptor` command in tests: in this process (quick), or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from preceptor.cli.main import main
from preceptor.execution import process
from tests import forked

# A shell may start the tests with SIGINT ignored, which a child would inherit.
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from preceptor.cli.main import main; main()"
)
HANGS = 600.0
"""Seconds after which a command that should have ended hangs, on however busy a machine."""
APART = [sys.executable, "-c", _START]


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def here(*arguments: object) -> Outcome:
    """Run the command in this process; an exception that it lets through fails the test."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(process, "import_early"),
        mock.patch.object(sys, "argv", ["preceptor", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Outcome(code, out.getvalue(), err.getvalue())


def apart(*arguments: object, cwd: Path | None = None) -> Outcome:
    """Run the command as a process of its own."""
    done = subprocess.run(
        [*APART, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def in_fork(*arguments: object, cwd: Path | None = None) -> Outcome:
    """Run the command as a process of its own that has imported what it needs."""
    environment = os.environ | {"COLUMNS": "200"}
    done = forked.run(forked.command, arguments, cwd=cwd, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


def flags(**values: object) -> list[object]:
    """Options of a command.

    Example:
        >>> flags(max_masks=128, to="out")
        ['--max-masks', 128, '--to', 'out']
    """
    pairs = ((f"--{name.replace('_', '-')}", value) for name, value in values.items())
    return [part for pair in pairs for part in pair]


def assert_refused(outcome: Outcome, expected: Sequence[str], problems: int | None = None) -> None:
    """Exit code 2, nothing on standard output, one `error:`, and every expected text in it."""
    assert "Traceback" not in outcome.out + outcome.err, outcome.err
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: "), outcome.err
    for text in expected:
        assert text in outcome.err, f"{text!r} is not in:\n{outcome.err}"
    lines = outcome.err.rstrip("\n").split("\n")
    assert len(lines) == 1 + (problems or 0), outcome.err
    if problems is not None:
        assert f"{problems} problem" in lines[0], outcome.err
        assert all(line.startswith("  ") and "; " in line for line in lines[1:]), outcome.err
