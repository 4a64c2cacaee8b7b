"""Schedule the steps of a graph on an executor."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from preceptor.errors import HeldError, PreceptorError
from preceptor.execution.events import Event, Executor
from preceptor.execution.failure_log import keep_error
from preceptor.execution.graph import Graph
from preceptor.execution.perform import drop_shards
from preceptor.study.steps import STEP_FOLDERS, MakeMaps, Select, Step, trained_again
from preceptor.utils.leases import lease
from preceptor.utils.results import damaged_files, is_finished

RETRY = 2.0  # seconds after which a step that another process is computing is tried again


class Observer(Protocol):
    """Callbacks for events of steps."""

    def chosen(self, step: Step) -> None:
        """A selection was made."""

    def already_done(self, step: Step) -> None:
        """A step had finished before."""

    def started(self, step: Step) -> None:
        """A step was given to the executor."""

    def assigned(self, step: Step, machine: str) -> None:
        """A worker has started a step; `machine` is where it runs."""

    def epoch(self, step: Step, line: str) -> None:
        """A training has finished an epoch; the line has its losses and metrics."""

    def message(self, step: Step, line: str) -> None:
        """A running step has a message."""

    def requeued(self, step: Step) -> None:
        """It did not finish and will be started again."""

    def finished(self, step: Step, here: bool) -> None:
        """It has finished: here, or in another process."""

    def failed(self, step: Step, reason: str) -> None:
        """It has failed, and the steps that need it are blocked."""


@dataclass
class Scheduler:
    """Starts ready steps, longest first, until none is left.

    A step that another process is computing (of another study with the same store) is tried again
    later. A step that has a result is done, also if a step that it needs fails.

    Args:
        graph: Steps; selections add more.
        executor: Executes the steps.
        store: Folder that receives their results.
        observer: Callbacks for events of steps.
        tell: Receives lines of text.
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
            except Exception as error:  # as of any other step, see `carry_out`
                self._fail(step, keep_error(step, self.store, error))
                return
            self.graph.finish(step.id)
            kept = self.graph.add(added, self._has_result)
            self.observer.chosen(step)
            for one in kept:
                self.observer.already_done(one)
            return
        try:
            done = self._is_done(step)
        except OSError as error:
            self._fail(step, f"{error.filename or step.id}: {error.strerror or error}")
            return
        except PreceptorError as error:  # of a file system without leases
            self._fail(step, str(error))
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
        for one in kept:
            self.observer.already_done(one)

    def _handle(self, event: Event) -> None:
        step, observer = self.graph.steps[event.step], self.observer
        match event.kind:
            case "assigned":
                observer.assigned(step, event.text)
            case "epoch":
                observer.epoch(step, event.text)
            case "message":
                observer.message(step, event.text)
            case "done" | "already_done":
                self.graph.finish(step.id)
                observer.finished(step, event.kind == "done")
            case "failed":
                self._fail(step, event.text)
            case "out_of_memory":
                observer.requeued(step)
                self.tell(f"{step.title}: {event.text}; retried with fewer steps on the device")
                self.graph.put_back(step.id)
            case "held":
                observer.requeued(step)
                if step.id not in self._held:
                    self.tell(
                        f"{step.title}: another process is computing it, or was before its machine "
                        "was lost; its result is used"
                    )
                self._held.add(step.id)
                self.graph.release(step.id)
                heapq.heappush(self._later, (time.monotonic() + RETRY, step.id))

    def _has_result(self, step: Step) -> bool:
        """Whether a step is done although a step that it needs has failed."""
        try:
            return not isinstance(step.work, Select) and self._is_done(step)
        except (OSError, PreceptorError):
            return False

    def _is_done(self, step: Step) -> bool:
        """Whether the result of a step exists, is intact, and is that of the weights that are used.

        A shard is not needed if its map store is finished.
        """
        if isinstance(step.work, MakeMaps) and (joined := step.work.joined):
            if joined not in self._joined:
                self._joined[joined] = self._is_intact(self.store / STEP_FOLDERS["maps"] / joined)
            return self._joined[joined] or self._is_intact(step.folder(self.store))
        intact = self._is_intact(step.folder(self.store))
        if intact:
            drop_shards(step, self.store)  # left by a process that died before it removed them
        return intact

    def _is_intact(self, folder: Path) -> bool:
        """Whether a folder has a result that can be used; another one is told of and given up."""
        if not is_finished(folder):
            return False
        if not self._fault(folder):
            return True
        try:
            with lease(folder, wait=0.0):
                # Another process may have computed it again before the lease was taken.
                if is_finished(folder):
                    fault = self._fault(folder)
                    if not fault:
                        return True
                    self.tell(fault)
                    (folder / "run.json").unlink(missing_ok=True)
        except HeldError:  # another process is computing it
            pass
        return False

    def _fault(self, folder: Path) -> str:
        """Why a finished result is computed again; "" for one that is used."""
        if damaged := damaged_files(folder):
            return f"damaged: {folder.name} ({', '.join(damaged)}); it is computed again"
        if others := trained_again(folder, self.store):
            return (
                f"{folder.parent.name}/{folder.name}: made with other weights of {others[0]}, "
                "which was trained again since; it is computed again"
            )
        return ""
