"""Timing two or more sides in one run: in turn, several times, medians of ratios within a turn."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch


def in_turn(
    sides: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side, turn by turn: A B C, A B C, …

    On a machine that others use too, `time.process_time` counts the side's own work alone.
    """
    for _ in range(warm):
        for run in sides.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, run in sides.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of two sides within a turn."""
    ratios = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
    return median(ratios), min(ratios), max(ratios)


def machine() -> str:
    """What the figures were measured on."""
    name = platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    if torch.cuda.is_available():
        name += f", {torch.cuda.get_device_name()}"
    return f"{name}; torch {torch.__version__}, {torch.get_num_threads()} threads"
