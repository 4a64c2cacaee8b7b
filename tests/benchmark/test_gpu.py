"""`benchmarks/gpu.py`, as far as it can run without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests import forked

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    found: subprocess.CompletedProcess[str] = forked.run(
        forked.script, [SCRIPT, *arguments], env=environment
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
