"""`benchmarks/gpu.py`, as far as it can run without a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests import forked

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_says_so() -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = forked.run(forked.script, [SCRIPT], env=environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there is no GPU" in done.stderr
