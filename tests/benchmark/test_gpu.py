"""`benchmarks/gpu.py`, as far as it can run without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests import forked

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


def fork_script(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run `python FILE ...` in a fork of this process, which has imported torch already."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = command
            code = 0
            try:
                forked.script()
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def script_of_forks() -> None:
    """A script whose own processes are forked."""
    with mock.patch("subprocess.run", fork_script):
        forked.script()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    found: subprocess.CompletedProcess[str] = forked.run(
        script_of_forks, [SCRIPT, *arguments], env=environment
    )
    return found


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_says_so() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there is no GPU" in done.stderr


SMALL = ("--device", "cpu", "--small", "--out")


def test_a_section_that_fails_is_told(tmp_path: Path) -> None:
    done = run(*SMALL, tmp_path, "--only", "memory")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu-cpu-small.json").read_text())
    assert found["memory"]["error"].endswith("needs a GPU")
    assert "| memory | failed | RuntimeError: needs a GPU |" in done.stdout
