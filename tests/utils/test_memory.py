"""Memory of devices that were not used yet, of decoding threads, and after decoding."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from preceptor.utils.memory import PixelBudget, out_of_memory, release_memory

DECODING = """
import threading
from pathlib import Path
from PIL import Image
from preceptor.utils.memory import return_freed_memory
assert return_freed_memory()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

def decode():
    return Image.new("RGBA", (2000, 2000)).convert("RGB").getpixel((0, 0))

decode()
before = resident()
threads = [threading.Thread(target=lambda: [decode() for _ in range(3)]) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident() - before)
"""


def test_a_gpu_that_was_not_used_has_nothing_to_release() -> None:
    """torch raises an error there, with a GPU and without."""
    if not torch.cuda.is_initialized():
        release_memory(torch.device("cuda"))


def test_errors_of_torch_are_recognized() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.skipif(
    sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="a setting of glibc"
)
def test_threads_that_decoded_give_their_memory_back() -> None:
    """Without the setting, each of the threads may keep blocks of 16 MiB."""
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


def test_an_image_above_the_budget_is_decoded_alone() -> None:
    budget = PixelBudget(10)
    with budget.reserve(1000):
        waiting = threading.Thread(target=lambda: budget.reserve(1).__enter__(), daemon=True)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join()
