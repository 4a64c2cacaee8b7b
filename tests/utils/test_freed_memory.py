"""Memory that a training process frees is kept for its next step."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import Pipe

import pytest

from preceptor.execution import worker

STEPS = """
import resource
import sys
from preceptor.utils.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    blocks = [b"x" * (side << 22) for side in (1, 3, 12)]  # of 4, 12 and 48 MiB
    return sum(one[-1] for one in blocks)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

on_linux = pytest.mark.skipif(
    sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="a setting of glibc"
)


def faults(side: str, **environment: str) -> int:
    """Page faults of ten steps in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, side],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@on_linux
def test_pages_are_not_mapped_again_in_every_step() -> None:
    assert faults("returned") > 10_000  # 64 MiB a step, of which at least the largest block
    assert faults("kept") < 500


@on_linux
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"])
def test_variables_of_the_user_stay_in_force(name: str) -> None:
    code = "from preceptor.utils.memory import keep_freed_memory as k; print(k())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {name: "100000"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_a_worker_of_a_study_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(worker, "silence", lambda: None)
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: called.append("kept"))
    ours, theirs = Pipe()
    ours.close()
    worker.serve(theirs)  # it ends, as its parent is gone
    theirs.close()
    assert called == ["kept"]
