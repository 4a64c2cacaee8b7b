"""Memory: errors of torch, decoding threads, and what is returned to the system or kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from preceptor.utils.process import PixelBudget

on_linux = pytest.mark.skipif(
    sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="a setting of glibc"
)

DECODING = """
import threading
from pathlib import Path
from PIL import Image
from preceptor.utils.process import return_freed_memory
assert return_freed_memory()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

def decode():
    return Image.new("RGBA", (3000, 3000)).convert("RGB").getpixel((0, 0))

decode()
before = resident()
threads = [threading.Thread(target=lambda: [decode() for _ in range(3)]) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident() - before)
"""


@on_linux
def test_threads_that_decoded_give_their_memory_back() -> None:
    """Without the setting, each of the threads may keep 69 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", DECODING], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 16


def test_threads_hold_no_more_pixels_than_the_budget() -> None:
    budget, held, most = PixelBudget(10), 0, []
    lock = threading.Lock()

    def decode(pixels: int) -> None:
        nonlocal held
        for _ in range(50):
            with budget.reserve(pixels):
                with lock:
                    held += pixels
                    most.append(held)
                with lock:
                    held -= pixels

    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in (3, 4, 6, 7, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 250
    assert max(most) <= 10
    with budget.reserve(1000):  # an image above the budget is decoded alone
        pass


STEPS = """
import resource
import sys
from preceptor.utils.process import keep_freed_memory
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


def faults(side: str) -> int:
    """Page faults of ten steps in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, side], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@on_linux
def test_pages_are_not_mapped_again_in_every_step() -> None:
    assert faults("returned") > 10_000  # 64 MiB a step, of which at least the largest block
    assert faults("kept") < 500
