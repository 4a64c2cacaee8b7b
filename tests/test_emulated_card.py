"""What needs a GPU, on an emulated one: no tensor is on the wrong device, and every branch runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`card.cpp`, compiled."""
    compiler = shutil.which("c++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C++ compiler and Linux")
    if torch.version.cuda or torch.version.hip:
        pytest.skip("this torch is built for GPUs: make gpu")
    file = tmp_path_factory.mktemp("card") / "card.so"
    torch_folder = Path(torch.__file__).parent
    command = [
        compiler, "-std=c++20", "-w", "-shared", "-fPIC",
        f"-I{torch_folder / 'include'}", str(HERE / "emulated_card" / "card.cpp"),
        "-o", str(file), f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"card.cpp does not compile with torch {torch.__version__}: {done.stderr}")
    return file


def passed(library: Path, *arguments: str) -> None:
    """Run tests on the emulated card."""
    command = [sys.executable, "-m", "tests.emulated_card", str(library), "-p", "no:xdist"]
    environment = os.environ | {"PRECEPTOR_EMULATED_CARD": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--tb=short", "--show-capture=no", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_the_tests_of_a_gpu_pass_on_an_emulated_one(library: Path) -> None:
    passed(library, "-m", "gpu and not on_a_gpu", "tests/gpu")
