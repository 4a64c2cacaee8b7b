"""Number of steps per GPU, from the peak memory of the largest training so far."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.errors import InputError
from preceptor.utils.results import read_record

# Usable share of a GPU's memory; the rest is for fragmentation of the allocator.
USABLE = 0.9
# Memory of a process on a GPU besides its tensors, in bytes: context, kernels and libraries.
OVERHEAD = 600 * 2**20


@dataclass
class GpuPacking:
    """Number of concurrent steps on one GPU.

    A study starts with one; the peak memory of its finished trainings then determines the number.
    If a later training runs out of memory, fewer steps share a GPU from then on.

    Args:
        fixed: Number set by the user; None = measured.
        most: Maximum number by the cores of one GPU.

    Example:
        >>> sharing = GpuPacking(None, most=8)
        >>> sharing.learn({"peak_memory": 4 * 2**30, "device_memory": 80 * 2**30})
        >>> sharing.runs
        8
        >>> sharing.learn({"peak_memory": 20 * 2**30, "device_memory": 80 * 2**30})
        >>> sharing.runs
        3
    """

    fixed: int | None
    most: int
    _peak: int = 0
    _room: int = 0
    _limit: int | None = None

    @property
    def runs(self) -> int:
        """Number of steps per GPU."""
        if self.fixed is not None:
            return self.fixed if self._limit is None else min(self.fixed, self._limit)
        if not self._peak:
            return 1
        fit = int(USABLE * self._room / (self._peak + OVERHEAD))
        return max(1, min(fit, self.most, fit if self._limit is None else self._limit))

    def learn(self, record: dict[str, Any]) -> None:
        """Update the estimate from the record of a finished training on a GPU."""
        if not record.get("device_memory"):
            return
        self._peak = max(self._peak, int(record["peak_memory"]))
        self._room = int(record["device_memory"])

    def learn_from(self, folder: Path) -> None:
        """Update the estimate from a run folder; an unreadable one is ignored."""
        with contextlib.suppress(OSError, ValueError, KeyError, InputError):
            self.learn(read_record(folder))

    def out_of_memory(self, among: int) -> None:
        """Reduce the number after a step ran out of memory on a GPU shared by this many."""
        fewer = max(1, among - 1)
        self._limit = fewer if self._limit is None else min(self._limit, fewer)
