"""The command as a process of its own: how it starts, what it imports, and what it prints to."""

from __future__ import annotations

import gc
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.start_up import imported_by_command


def test_help_needs_nothing_heavy() -> None:
    heavy = {"torch", "timm", "pandas", "numpy", "pydantic", "matplotlib", "rich.console"}
    assert not imported_by_command(["--help"], heavy).imported


def test_a_reader_that_has_seen_enough(data: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = forked.run(forked.command, ["data", "check", data / "manifest.csv"], stdout=write)
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_command_as_it_is_installed() -> None:
    script = Path(sys.executable).with_name("preceptor")
    if not script.is_file():
        pytest.skip("the project is not installed beside this Python")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().count(".") == 2


def ascii_command() -> None:
    out, err = (open(handle, "wb", closefd=False) for handle in (1, 2))  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(out, "ascii")
    sys.stderr = io.TextIOWrapper(err, "ascii", "backslashreplace")
    forked.command()


def test_letters_that_a_terminal_lacks_are_escaped() -> None:
    done = forked.run(ascii_command, ["data", "check", "no α"])
    assert done.returncode, done.stdout
    assert "no \\u03b1" in done.stderr


def write_after_old_files_are_freed() -> None:
    """Close the files of the server, as the collector may at any time, and write to a new one."""
    old = [one for one in gc.get_objects() if isinstance(one, io.FileIO | socket.socket)]
    with Path(sys.argv[1]).open("w") as file:
        for one in old:
            if getattr(one, "closefd", True):
                one.close()
        file.write("written")


def test_a_forked_process_owns_its_files(tmp_path: Path) -> None:
    done = forked.run(write_after_old_files_are_freed, [tmp_path / "file"])
    assert done.stderr == ""
    assert (tmp_path / "file").read_text() == "written"
