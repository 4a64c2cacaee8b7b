"""Serial execution: steps in this process, one after the other, without workers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from preceptor.execution.events import Event, WorkerContext
from preceptor.execution.worker import carry_out
from preceptor.study.steps import Step


class SerialExecutor:
    """Executes a step when its events are read.

    Args:
        context: Data and settings of the study.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = replace(context, hang_timeout=math.inf)  # a hang would end the caller
        self._step: Step | None = None

    @property
    def free(self) -> int:
        """1 while no step is running, else 0."""
        return int(self._step is None)

    def start(self, step: Step) -> None:
        """Start a step."""
        self._step = step

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Execute the step; its events are returned when it has ended."""
        step, self._step = self._step, None
        if step is None:
            return
        heard: list[Event] = []
        end = carry_out(step, self._context, heard.append)
        yield from (*heard, end)

    def close(self) -> None:
        """Do nothing: no step is running."""
