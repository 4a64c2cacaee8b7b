"""Steps with explicit needs, and the order in which they become ready."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from preceptor.config import Method, RiseSettings, RunConfig
from preceptor.saliency.shards import Part

Kind = Literal["train", "shard", "annotate", "committee", "evaluate", "select"]
# Where in a store the steps of a kind leave their folders.
ROOMS = {
    "train": "runs", "shard": "shards", "annotate": "maps", "committee": "maps",
    "evaluate": "evaluations", "select": "",
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """What a run is in the study: the row of a table that it belongs to.

    Args:
        role: baseline1, baseline2, teacher, student, ceiling; the controls shuffled, centre,
            distilled and mixed; "variant NAME"; member (a committee's further Teacher) and
            "generation 2" and up, which stand in no table; with " @ SIZE" behind it where the study
            has that many annotated images.
        backbone: Of the model.
        alpha: α; 1 where nothing guides.
        teacher: The Teacher configuration whose maps guide, as text, or "".
    """

    role: str
    backbone: str
    alpha: float
    teacher: str = ""


@dataclass(frozen=True)
class MapsJob:
    """One map store to be made, or a part of one.

    Args:
        teacher: The Teacher's run id, or several for a committee's mean.
        method: cam or rise.
        turns: Over the eight flips and quarter turns.
        rise: Settings of rise.
        parts: What is marked; of a shard one. A store of several parts is joined from shards.
        model: The Teacher's model folder; None = that of its run in the store.
    """

    teacher: tuple[str, ...]
    method: Method
    turns: bool = False
    rise: RiseSettings | None = None
    parts: tuple[Part, ...] = ()
    model: Path | None = None


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Args:
        id: Equal for equal work, in any study.
        kind: What is done.
        title: For people.
        needs: Steps that come first.
        run: The training, for train steps; the model scored, for evaluate steps.
        maps: For annotate and committee steps.
        choose: For select steps: decides, and returns the steps that follow from it.
        cost: Images that pass a model forward and back; for order and time estimates.
        part_of: Of a shard: the step that joins it with the others.
    """

    id: str
    kind: Kind
    title: str
    needs: tuple[str, ...] = ()
    run: RunConfig | None = None
    maps: MapsJob | None = None
    choose: Callable[[], list[Step]] | None = field(default=None, compare=False)
    cost: float = 0.0
    part_of: str = ""

    def folder(self, store: Path) -> Path:
        """Where in a store it leaves its result."""
        return store / ROOMS[self.kind] / self.id


def marking_steps(
    job: MapsJob,
    identity: str,
    title: str,
    needs: tuple[str, ...],
    run: RunConfig,
    cost: float,
    *,
    alone: bool = True,
) -> list[Step]:
    """The steps of a marking: one, or one a shard and one that joins them.

    Args:
        job: What is marked, and how.
        identity: Of the step that leaves the map store.
        title: Of it.
        needs: What comes first.
        run: The model's training, whose settings of threads, device and precision hold.
        cost: Of an image.
        alone: Whether a single shard is one step with the join.
    """
    count = len(job.parts)
    if count == 1 and alone:
        images = job.parts[0].stop - job.parts[0].start
        return [Step(identity, "annotate", title, needs, run=run, maps=job, cost=images * cost)]
    shards = [
        Step(
            shard_id(identity, place), "shard", f"{title}, shard {place + 1} of {count}", needs,
            run=run, maps=replace(job, parts=(part,)), cost=(part.stop - part.start) * cost,
            part_of=identity,
        )
        for place, part in enumerate(job.parts)
    ]  # fmt: skip
    needs = (*needs, *(shard.id for shard in shards))
    return [*shards, Step(identity, "annotate", title, needs, run=run, maps=job)]


def shard_id(joined: str, place: int) -> str:
    """The id of a shard of a marking."""
    return f"{joined}-{place:05d}"


def selection_id(domain: str, what: str) -> str:
    """The id of a selection: it is one of its domain alone."""
    return f"select:{domain}:{what}"


def selected(step: Step) -> tuple[str, str]:
    """The domain of a selection, and what it selects: teacher, or ROLE:BACKBONE."""
    _, domain, what = step.id.split(":", 2)
    return domain, what


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
