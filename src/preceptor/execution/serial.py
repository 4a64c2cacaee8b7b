"""Steps in this very process, one after the other: for work too small to start workers for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from preceptor.execution.events import Event, Work
from preceptor.execution.worker import carry_out
from preceptor.study.steps import Step


class HereExecutor:
    """Does a step when its events are asked for.

    Args:
        work: What a worker needs to know.
    """

    def __init__(self, work: Work) -> None:
        self._work = replace(work, patience=math.inf)  # nobody is there to tell of its end
        self._step: Step | None = None

    @property
    def free(self) -> int:
        """Whether it has nothing to do."""
        return int(self._step is None)

    def start(self, step: Step) -> None:
        """Take a step."""
        self._step = step

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Do the step; its lines come with its end."""
        step, self._step = self._step, None
        if step is None:
            return
        heard: list[Event] = []
        end = carry_out(step, self._work, heard.append)
        yield from (*heard, end)

    def close(self) -> None:
        """Nothing is left to end."""
