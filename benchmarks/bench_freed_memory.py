"""Guided steps that keep freed memory against steps that return it to the system, on a CPU.

    python benchmarks/bench_freed_memory.py [--turns 5] [--threads 1]
        [--networks test_byobnet:64:32 ...]

A network is NAME:PIXELS:BATCH. Each side is a process of its own, because the setting cannot be
taken back; sides alternate. Printed are the medians over the turns of CPU time and page faults of a
step, of the peak memory, and the median ratio of the CPU times of a turn. The sums of the outputs
after three steps must be equal on both sides, bit by bit.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

import torch
from bench_guided_step import Sides
from measure import machine

from preceptor.runtime.freed_memory import keep_freed_memory

NETWORKS = (
    "test_byobnet:64:32",
    "mobilenetv2_100:96:16",
    "resnet18:128:16",
    "densenet121:224:8",
)
SECONDS = 4.0


def side(network: str, threads: int, keep: bool) -> dict[str, float]:
    """CPU seconds and page faults of a step in this process, its peak in MB, a sum of outputs."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(threads)
    name, pixels, batch = network.split(":")
    one = Sides(name, int(batch), torch.device("cpu"), size=int(pixels))
    for _ in range(3):
        one.guided()
    before, started, steps = resource.getrusage(resource.RUSAGE_SELF), time.process_time(), 0
    while steps < 5 or time.process_time() - started < SECONDS:
        one.guided()
        steps += 1
    seconds, after = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF)
    torch.manual_seed(0)  # the same number of steps on both sides
    fresh = Sides(name, int(batch), torch.device("cpu"), size=int(pixels))
    for _ in range(3):
        fresh.guided()
    with torch.no_grad():
        check = float(fresh.model(fresh.images)[0].double().sum())
    return {
        "seconds": seconds / steps,
        "faults": (after.ru_minflt - before.ru_minflt) / steps,
        "peak": after.ru_maxrss / 1024,
        "check": check,
    }


def in_process(network: str, threads: int, *more: str) -> dict[str, float]:
    """Figures of a side in a process of its own."""
    command = [sys.executable, __file__, "--side", network, "--threads", str(threads), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(options.side, options.threads, options.keep)))
        return
    torch.set_num_threads(options.threads)
    print(f"{machine()}; {options.turns} turns")
    print("network, pixels, batch | ms of a step | kept ÷ returned | faults of a step | peak, MB")
    for network in options.networks:
        returned, kept = [], []
        for _ in range(options.turns):
            returned.append(in_process(network, options.threads))
            kept.append(in_process(network, options.threads, "--keep"))
        assert len({one["check"] for one in (*returned, *kept)}) == 1, "the sides differ"
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(kept, returned, strict=True)]
        both = (returned, kept)
        cells = (
            network,
            " and ".join(f"{1000 * _median(one, 'seconds'):.1f}" for one in both),
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            " and ".join(f"{_median(one, 'faults'):,.0f}" for one in both),
            " and ".join(f"{_median(one, 'peak'):.0f}" for one in both),
        )
        print(" | ".join(cells), flush=True)


def _median(figures: Sequence[dict[str, float]], name: str) -> float:
    return median(one[name] for one in figures)


if __name__ == "__main__":
    main()
