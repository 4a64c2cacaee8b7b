"""`benchmarks/gpu.py`, as far as it can run without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_says_so() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there is no GPU" in done.stderr


def test_a_section_that_fails_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    small = ("--device", "cpu", "--small", "--out", tmp_path, "--only")
    done = run(*small, "rise", "memory")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("gpu-cpu-small.json")
    found = json.loads(file.read_text())
    assert list(found) == ["rise", "memory"]
    assert [figure["unit"] for figure in found["rise"]["figures"]] == ["s", "÷"]
    assert found["memory"]["error"].endswith("needs a GPU")
    assert "| memory | failed | RuntimeError: needs a GPU |" in done.stdout
    run(*small, "rise")  # which is there
    assert json.loads(file.read_text()) == found
