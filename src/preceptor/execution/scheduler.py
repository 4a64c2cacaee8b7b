"""The walk over a graph of steps: what is ready is started, until nothing is left."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from preceptor.execution.events import Event, Executor
from preceptor.execution.graph import Graph
from preceptor.execution.perform import drop_shards
from preceptor.runtime.result_folder import damaged_files, is_finished
from preceptor.study.steps import ROOMS, Step

AGAIN = 2.0  # seconds after which a step that another process does is asked for again


class Watcher(Protocol):
    """Is told of everything that happens to a step."""

    def chosen(self, step: Step) -> None:
        """A selection was made."""

    def there(self, step: Step) -> None:
        """A step was found finished."""

    def started(self, step: Step) -> None:
        """A step was given to the executor."""

    def placed(self, step: Step, where: str) -> None:
        """A worker has begun with it, on this machine."""

    def said(self, step: Step, line: str) -> None:
        """A line of its progress."""

    def dropped(self, step: Step) -> None:
        """It was given back, to be asked for again."""

    def finished(self, step: Step, here: bool) -> None:
        """It is done: here, or by another process meanwhile."""

    def failed(self, step: Step, reason: str) -> None:
        """It could not be done, and what needs it is blocked."""


@dataclass
class Walk:
    """Starts what is ready, longest first, until nothing is left.

    A step that another process does, of another study in the same store, is asked for again later.

    Args:
        graph: Of steps; selections make it grow.
        executor: Does them.
        store: Where they leave their folders.
        watcher: Is told of each.
        tell: Receives lines.
    """

    graph: Graph
    executor: Executor
    store: Path
    watcher: Watcher
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        self._later: list[tuple[float, str]] = []  # a heap: when, and which
        self._asked: set[str] = set()  # those that another process was found to do
        self._joined: dict[str, bool] = {}  # markings, and whether they are finished

    def run(self) -> None:
        """Until nothing runs, waits or is ready."""
        graph = self.graph
        stranded = False
        while True:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                graph.put_back(heapq.heappop(self._later)[1])
            while self.executor.free and (step := graph.take()):
                self._begin(step)
            if graph.running:
                for event in self.executor.events(AGAIN if self._later else None):
                    self._note(event)
            elif self._later:
                time.sleep(AGAIN / 4)
            elif graph.has_ready:  # nothing runs, and there is no room: machines were lost
                if not stranded:
                    self.tell("no machine is left to work on; waiting for one")
                stranded = True
                time.sleep(AGAIN)
            else:
                return

    def _begin(self, step: Step) -> None:
        if step.kind == "select":
            assert step.choose is not None
            added = step.choose()
            self.graph.finish(step.id)
            self.graph.add(added)
            self.watcher.chosen(step)
            return
        try:
            there = self._there(step)
        except OSError as error:
            self._fail(step, f"{error.filename or step.id}: {error.strerror or error}")
            return
        if there:
            self.graph.finish(step.id)
            self.watcher.there(step)
        else:
            self.watcher.started(step)
            self.executor.start(step)

    def _fail(self, step: Step, reason: str) -> None:
        self.graph.fail(step.id, reason)
        self.watcher.failed(step, reason)

    def _note(self, event: Event) -> None:
        step, watcher = self.graph.steps[event.step], self.watcher
        match event.kind:
            case "place":
                watcher.placed(step, event.text)
            case "line":
                watcher.said(step, event.text)
            case "done" | "there":
                self.graph.finish(step.id)
                watcher.finished(step, event.kind == "done")
            case "failed":
                self._fail(step, event.text)
            case "crowded":
                watcher.dropped(step)
                self.tell(f"{step.title}: {event.text}; it is done again with fewer beside it")
                self.graph.put_back(step.id)
            case "busy":
                watcher.dropped(step)
                if step.id not in self._asked:
                    self.tell(
                        f"{step.title}: another process does it, or did until its machine was "
                        "lost; what it leaves is used"
                    )
                self._asked.add(step.id)
                self.graph.running.discard(step.id)
                heapq.heappush(self._later, (time.monotonic() + AGAIN, step.id))

    def _there(self, step: Step) -> bool:
        """Whether a step's result exists and is whole; a damaged one is put aside and redone.

        A shard is no longer needed once the marking is finished that it is a part of.
        """
        if step.part_of:
            if step.part_of not in self._joined:
                whole = self._whole(self.store / ROOMS["annotate"] / step.part_of)
                self._joined[step.part_of] = whole
            return self._joined[step.part_of] or self._whole(step.folder(self.store))
        whole = self._whole(step.folder(self.store))
        if whole:
            drop_shards(step, self.store)  # where a process died between the two
        return whole

    def _whole(self, folder: Path) -> bool:
        if not is_finished(folder):
            return False
        damaged = damaged_files(folder)
        if damaged:
            self.tell(f"damaged: {folder.name} ({', '.join(damaged)}); it is made again")
            (folder / "run.json").unlink(missing_ok=True)
        return not damaged
