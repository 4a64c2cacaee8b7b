"""How many steps share a GPU: as many as the largest training seen so far fits into it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.errors import InputError
from preceptor.runtime.result_folder import read_record

# Of a GPU's memory; the rest is for the allocator's fragments.
USABLE = 0.9
# Bytes that a process takes on a GPU beside its tensors: the context, kernels and libraries.
OVERHEAD = 600 * 2**20


@dataclass
class GpuPacking:
    """How many steps run on one GPU at a time.

    A study begins with one; the peak memory of its finished trainings says how many fit. A training
    that needs more than those before it may find no room; then fewer share from there on.

    Args:
        fixed: As the user wants it; None = measured.
        most: What the cores of one GPU allow.

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
        """Steps on a GPU."""
        if self.fixed is not None:
            return self.fixed if self._limit is None else min(self.fixed, self._limit)
        if not self._peak:
            return 1
        fit = int(USABLE * self._room / (self._peak + OVERHEAD))
        return max(1, min(fit, self.most, fit if self._limit is None else self._limit))

    def learn(self, record: dict[str, Any]) -> None:
        """Take over what a finished training on a GPU has measured, from its run.json."""
        if not record.get("device_memory"):
            return
        self._peak = max(self._peak, int(record["peak_memory"]))
        self._room = int(record["device_memory"])

    def learn_from(self, folder: Path) -> None:
        """The same from its run folder; one that cannot be read teaches nothing."""
        with contextlib.suppress(OSError, ValueError, KeyError, InputError):
            self.learn(read_record(folder))

    def out_of_memory(self, among: int) -> None:
        """A step found no room where so many were to share."""
        fewer = max(1, among - 1)
        self._limit = fewer if self._limit is None else min(self._limit, fewer)
