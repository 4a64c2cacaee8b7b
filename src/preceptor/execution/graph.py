"""The graph of steps, and the order in which they become ready."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from preceptor.study.steps import Step


class Graph:
    """The steps known so far; grows when a selection is made.

    A step whose need failed is blocked, and so is all that needs it; the rest goes on. Each change
    costs what it touches, not what the graph holds: a study may have tens of thousands of steps.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps: dict[str, Step] = {}
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.running: set[str] = set()
        self.work, self.work_done = 0, 0  # steps that are no selections
        self._missing: dict[str, int] = {}  # of a waiting step: how many needs are not done
        self._dependents: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []  # a heap
        self._count = 0
        self.add(steps)

    def add(self, steps: Iterable[Step]) -> None:
        """Add steps; one that is known already is the same work and is kept once."""
        for step in steps:
            if step.id in self.steps:
                continue
            self.steps[step.id] = step
            self.work += step.kind != "select"
            open_needs = [need for need in dict.fromkeys(step.needs) if need not in self.done]
            for need in open_needs:
                self._dependents.setdefault(need, []).append(step.id)
            lost = [need for need in open_needs if need in self.failed]
            if lost:
                self._block(step.id, lost[0])
            elif open_needs:
                self._missing[step.id] = len(open_needs)
            else:
                self._push(step)

    def take(self) -> Step | None:
        """The ready step that comes next, which counts as running from now on.

        Selections come first, for they take no time and others wait for them; then the longest.
        """
        if not self._ready:
            return None
        _, _, identity = heapq.heappop(self._ready)
        self.running.add(identity)
        return self.steps[identity]

    @property
    def has_ready(self) -> bool:
        """Whether a step could be taken."""
        return bool(self._ready)

    def put_back(self, identity: str) -> None:
        """A step that was taken was not done: it is ready again."""
        self.running.discard(identity)
        self._push(self.steps[identity])

    def finish(self, identity: str) -> None:
        """Mark a step done; what waited for it alone becomes ready."""
        self.running.discard(identity)
        self.done.add(identity)
        self.work_done += self.steps[identity].kind != "select"
        for one in self._dependents.pop(identity, ()):
            if one in self._missing:
                self._missing[one] -= 1
                if not self._missing[one]:
                    del self._missing[one]
                    self._push(self.steps[one])

    def fail(self, identity: str, reason: str) -> None:
        """Mark a step failed, and what needs it blocked."""
        self.running.discard(identity)
        self.failed[identity] = reason
        self._blocked_by(identity)

    def _blocked_by(self, identity: str) -> None:
        lost = [identity]
        while lost:
            need = lost.pop()
            for one in self._dependents.pop(need, ()):
                if one not in self.failed:
                    self._missing.pop(one, None)
                    self.failed[one] = f"needs {self.steps[need].title}, which failed"
                    lost.append(one)

    def _block(self, identity: str, need: str) -> None:
        title = self.steps[need].title if need in self.steps else need
        self.failed[identity] = f"needs {title}, which failed"
        self._blocked_by(identity)

    def _push(self, step: Step) -> None:
        first = -math.inf if step.kind == "select" else -step.cost
        self._count += 1  # of equally long steps the one that was ready first
        heapq.heappush(self._ready, (first, self._count, step.id))
