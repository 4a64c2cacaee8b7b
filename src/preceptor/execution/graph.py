"""Graph of steps: which are ready, running, done and failed."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable

from preceptor.study.steps import Failure, Step


class Graph:
    """Graph of the steps known so far; it grows with every selection.

    A step is blocked when a step that it needs fails, and so is every step that needs it; steps
    that have a result already, and the other steps, are not affected. The cost of a change depends
    on the steps that it concerns, not on the size of the graph: a study may have tens of thousands
    of steps.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps: dict[str, Step] = {}
        self.done: set[str] = set()
        self.failed: dict[str, Failure] = {}
        self.running: set[str] = set()
        self.total, self.total_done = 0, 0  # without selections
        self._missing: dict[str, int] = {}  # number of needs that are not done, by waiting step
        self._dependents: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []  # a heap
        self._count = 0
        self.add(steps)

    def add(
        self, steps: Iterable[Step], has_result: Callable[[Step], bool] = lambda step: False
    ) -> list[Step]:
        """Add steps; steps with known ids are the same work and are kept once.

        Args:
            steps: The steps.
            has_result: Whether the result of a step exists; called for steps that need failed ones.

        Returns:
            Steps that are done, since they have a result although a step that they need failed.
        """
        kept = []
        for step in steps:
            if step.id in self.steps:
                continue
            self.steps[step.id] = step
            self.total += step.kind != "select"
            open_needs = [need for need in dict.fromkeys(step.needs) if need not in self.done]
            for need in open_needs:
                self._dependents.setdefault(need, []).append(step.id)
            lost = [need for need in open_needs if need in self.failed]
            if lost:
                kept += self._block([(step.id, lost[0])], has_result)
            elif open_needs:
                self._missing[step.id] = len(open_needs)
            else:
                self._push(step)
        return kept

    def take(self) -> Step | None:
        """Next ready step, which is marked as running.

        Selections come first, since they take no time and other steps wait for them; then the
        longest step.
        """
        if not self._ready:
            return None
        _, _, identity = heapq.heappop(self._ready)
        self.running.add(identity)
        return self.steps[identity]

    @property
    def has_ready(self) -> bool:
        """Whether any step is ready."""
        return bool(self._ready)

    def release(self, identity: str) -> None:
        """Mark a running step as not running; `put_back` makes it ready again."""
        self.running.discard(identity)

    def put_back(self, identity: str) -> None:
        """Make a running step ready again."""
        self.release(identity)
        self._push(self.steps[identity])

    def finish(self, identity: str) -> None:
        """Mark a step done; steps that waited only for it become ready."""
        self.release(identity)
        self.done.add(identity)
        self.total_done += self.steps[identity].kind != "select"
        for one in self._dependents.pop(identity, ()):
            if one in self._missing:
                self._missing[one] -= 1
                if not self._missing[one]:
                    del self._missing[one]
                    self._push(self.steps[one])

    def fail(
        self,
        identity: str,
        reason: str,
        has_result: Callable[[Step], bool] = lambda step: False,
    ) -> list[Step]:
        """Mark a step failed, and the steps that need it blocked.

        Args:
            identity: Id of the step.
            reason: Reason, in one line.
            has_result: Whether the result of a step exists; called for steps that need failed ones.

        Returns:
            Steps that are done, since they have a result although a step that they need failed.
        """
        self.release(identity)
        step = self.steps[identity]
        self.failed[identity] = Failure(step.kind, step.title, reason)
        lost = [(one, identity) for one in self._dependents.pop(identity, ())]
        return self._block(lost, has_result)

    def _block(self, lost: list[tuple[str, str]], has_result: Callable[[Step], bool]) -> list[Step]:
        """Block steps, each with a failed need, and those that need them; see `fail`."""
        kept = []
        while lost:
            identity, need = lost.pop()
            if identity in self.failed or identity in self.done:
                continue
            self._missing.pop(identity, None)
            step = self.steps[identity]
            if has_result(step):
                self.finish(identity)
                kept.append(step)
            else:
                self.failed[identity] = self._blocked(identity, need)
                lost += [(one, identity) for one in self._dependents.pop(identity, ())]
        return kept

    def _blocked(self, identity: str, need: str) -> Failure:
        step = self.steps[identity]
        reason = f"needs {self.failed[need].title}, which failed"
        return Failure(step.kind, step.title, reason, blocked=True)

    def _push(self, step: Step) -> None:
        first = -math.inf if step.kind == "select" else -step.cost
        self._count += 1  # of equally long steps the first that became ready
        heapq.heappush(self._ready, (first, self._count, step.id))
