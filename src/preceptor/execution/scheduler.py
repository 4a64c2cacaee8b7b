"""Graph of a study's steps, and their execution in an order that keeps the executor busy."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from preceptor.errors import HeldError, PreceptorError
from preceptor.execution.perform import Event, Executor, drop_shards, keep_error
from preceptor.study.steps import STEP_FOLDERS, Failure, MakeMaps, Select, Step, replaced_run
from preceptor.utils.leases import lease
from preceptor.utils.results import damaged_files, is_finished

RETRY = 2.0  # seconds after which a step that another process is computing is tried again


class Graph:
    """Graph of the steps known so far; it grows with every selection.

    A step is blocked when a step that it needs fails, and so is every step that needs it, unless it
    has a result already.
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
        """Add steps that are not known; returned are those with a result whose need failed."""
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
        """Next ready step, which is marked as running: a selection, then the longest step."""
        if not self._ready:
            return None
        _, _, identity = heapq.heappop(self._ready)
        self.running.add(identity)
        return self.steps[identity]

    @property
    def has_ready(self) -> bool:
        """Whether any step is ready."""
        return bool(self._ready)

    def put_back(self, identity: str) -> None:
        """Make a running step ready again."""
        self.running.discard(identity)
        self._push(self.steps[identity])

    def finish(self, identity: str) -> None:
        """Mark a step done; steps that waited only for it become ready."""
        self.running.discard(identity)
        self.done.add(identity)
        self.total_done += self.steps[identity].kind != "select"
        for dependent in self._dependents.pop(identity, ()):
            if dependent in self._missing:
                self._missing[dependent] -= 1
                if not self._missing[dependent]:
                    del self._missing[dependent]
                    self._push(self.steps[dependent])

    def fail(
        self, identity: str, reason: str, has_result: Callable[[Step], bool] = lambda step: False
    ) -> list[Step]:
        """Mark a step failed, and the steps that need it blocked or done; see `add`."""
        self.running.discard(identity)
        step = self.steps[identity]
        self.failed[identity] = Failure(step.kind, step.title, reason)
        lost = [(dependent, identity) for dependent in self._dependents.pop(identity, ())]
        return self._block(lost, has_result)

    def _block(self, lost: list[tuple[str, str]], has_result: Callable[[Step], bool]) -> list[Step]:
        """Block steps that each have a failed need, and the steps that need them."""
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
                reason = f"needs {self.failed[need].title}, which failed"
                self.failed[identity] = Failure(step.kind, step.title, reason, blocked=True)
                lost += [(dependent, identity) for dependent in self._dependents.pop(identity, ())]
        return kept

    def _push(self, step: Step) -> None:
        first = -math.inf if step.kind == "select" else -step.cost
        self._count += 1  # of equally long steps the first that became ready
        heapq.heappush(self._ready, (first, self._count, step.id))


class Observer:
    """Callbacks for the steps of a study, which do nothing."""

    def chosen(self, step: Step) -> None:
        """A selection was made."""

    def already_done(self, step: Step) -> None:
        """A step had finished before."""

    def started(self, step: Step) -> None:
        """A step was given to the executor."""

    def heard(self, step: Step, event: Event) -> None:
        """A running step was assigned to a machine, has a message or has finished an epoch."""

    def requeued(self, step: Step) -> None:
        """A step did not finish and will be started again."""

    def finished(self, step: Step, here: bool) -> None:
        """A step has finished: here, or in another process."""

    def failed(self, step: Step, reason: str) -> None:
        """A step has failed, and the steps that need it are blocked."""


@dataclass
class Scheduler:
    """Starts ready steps, longest first, until none is left.

    A step that another process is computing (of another study with the same store) is tried again
    later. A step that has a result is done, also if a step that it needs fails.
    """

    graph: Graph
    executor: Executor
    store: Path
    observer: Observer
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        self._later: list[tuple[float, str]] = []  # a heap of times and step ids
        self._held: set[str] = set()  # steps that another process is computing
        self._joined: dict[str, bool] = {}  # whether a map store is finished, by step id

    def run(self) -> None:
        """Run until no step is ready, running or waiting."""
        graph = self.graph
        stranded = False
        while True:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                graph.put_back(heapq.heappop(self._later)[1])
            while self.executor.free and (step := graph.take()):
                self._begin(step)
            if graph.running:
                for event in self.executor.events(RETRY if self._later else None):
                    self._handle(event)
            elif self._later:
                time.sleep(RETRY / 4)
            elif graph.has_ready:  # nothing runs and nothing can be started: machines were lost
                if not stranded:
                    self.tell("no machine is available; waiting for one")
                stranded = True
                time.sleep(RETRY)
            else:
                return

    def _begin(self, step: Step) -> None:
        if isinstance(step.work, Select):
            try:
                added = step.work.choose()
            except Exception as error:  # like an error of any other step, see `carry_out`
                self._fail(step, keep_error(step, self.store, error))
                return
            self.graph.finish(step.id)
            kept = self.graph.add(added, self._has_result)
            self.observer.chosen(step)
            for finished in kept:
                self.observer.already_done(finished)
            return
        try:
            done = self._is_done(step)
        except (OSError, PreceptorError) as error:  # such as a file system without leases
            self._fail(step, keep_error(step, self.store, error))
            return
        if done:
            self.graph.finish(step.id)
            self.observer.already_done(step)
        else:
            self.observer.started(step)
            self.executor.start(step)

    def _fail(self, step: Step, reason: str) -> None:
        kept = self.graph.fail(step.id, reason, self._has_result)
        self.observer.failed(step, reason)
        for finished in kept:
            self.observer.already_done(finished)

    def _handle(self, event: Event) -> None:
        step, observer = self.graph.steps[event.step], self.observer
        match event.kind:
            case "assigned" | "epoch" | "message":
                observer.heard(step, event)
            case "done" | "already_done":
                self.graph.finish(step.id)
                observer.finished(step, event.kind == "done")
            case "failed":
                self._fail(step, event.text)
            case "held":
                observer.requeued(step)
                if step.id not in self._held:
                    self.tell(
                        f"{step.title}: another process is computing it, or was before its machine "
                        "was lost; its result is used"
                    )
                self._held.add(step.id)
                self.graph.running.discard(step.id)
                heapq.heappush(self._later, (time.monotonic() + RETRY, step.id))

    def _has_result(self, step: Step) -> bool:
        """Whether a step is done although a step that it needs has failed."""
        try:
            return not isinstance(step.work, Select) and self._is_done(step)
        except (OSError, PreceptorError):
            return False

    def _is_done(self, step: Step) -> bool:
        """Whether a result is there and intact; a shard is not needed if its store is."""
        if isinstance(step.work, MakeMaps) and (joined := step.work.joined):
            if joined not in self._joined:
                self._joined[joined] = self._is_intact(self.store / STEP_FOLDERS["maps"] / joined)
            return self._joined[joined] or self._is_intact(step.folder(self.store))
        intact = self._is_intact(step.folder(self.store))
        if intact:
            drop_shards(step, self.store)  # left by a process that died before it removed them
        return intact

    def _is_intact(self, folder: Path) -> bool:
        """Whether a folder has a result that can be used; another one is reported and dropped."""
        if not is_finished(folder):
            return False
        if not self._fault(folder):
            return True
        try:
            with lease(folder, wait=0.0):
                # Another process may have dropped it, or computed it again, before.
                fault = self._fault(folder) if is_finished(folder) else None
                if fault:
                    self.tell(f"{fault}; it is computed again")
                    (folder / "run.json").unlink(missing_ok=True)
                return fault == ""
        except HeldError:  # another process is computing it
            pass
        return False

    def _fault(self, folder: Path) -> str:
        """Why a finished result cannot be used: damaged, or of replaced weights; else ""."""
        if damaged := damaged_files(folder):
            return f"damaged: {folder.name} ({', '.join(damaged)})"
        run = replaced_run(folder, self.store)
        return f"{folder.name}: made with other weights of {run}" if run else ""
