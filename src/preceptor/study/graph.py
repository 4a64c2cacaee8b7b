"""Steps with explicit needs, and the order in which they become ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from preceptor.config import Method, RiseSettings, RunConfig

Kind = Literal["train", "annotate", "committee", "evaluate", "select"]


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
    """One map store to be made.

    Args:
        teacher: The Teacher's run id, or several for a committee's mean.
        method: cam or rise.
        turns: Over the eight flips and quarter turns.
        rise: Settings of rise.
    """

    teacher: tuple[str, ...]
    method: Method
    turns: bool = False
    rise: RiseSettings | None = None


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
    """

    id: str
    kind: Kind
    title: str
    needs: tuple[str, ...] = ()
    run: RunConfig | None = None
    maps: MapsJob | None = None
    choose: Callable[[], list[Step]] | None = field(default=None, compare=False)
    cost: float = 0.0


def selection_id(domain: str, what: str) -> str:
    """The id of a selection: it is one of its domain alone."""
    return f"select:{domain}:{what}"


def selected(step: Step) -> tuple[str, str]:
    """The domain of a selection, and what it selects: teacher, or ROLE:BACKBONE."""
    _, domain, what = step.id.split(":", 2)
    return domain, what


class Graph:
    """The steps known so far; grows when a selection is made.

    A step whose need failed is blocked, and so is all that needs it; the rest goes on.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps: dict[str, Step] = {}
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.running: set[str] = set()
        self.add(steps)

    def add(self, steps: Iterable[Step]) -> None:
        """Add steps; one that is known already is the same work and is kept once."""
        for step in steps:
            self.steps.setdefault(step.id, step)

    def ready(self) -> list[Step]:
        """Steps that can start now, longest first."""
        waiting = [
            step
            for step in self.steps.values()
            if step.id not in self.done
            and step.id not in self.failed
            and step.id not in self.running
            and all(need in self.done for need in step.needs)
        ]
        return sorted(waiting, key=lambda step: -step.cost)

    def fail(self, identity: str, reason: str) -> None:
        """Mark a step failed, and what needs it blocked."""
        self.failed[identity] = reason
        grown = True
        while grown:
            grown = False
            for step in self.steps.values():
                lost = [need for need in step.needs if need in self.failed]
                if lost and step.id not in self.failed:
                    self.failed[step.id] = f"needs {self.steps[lost[0]].title}, which failed"
                    grown = True

    def finished(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        return not self.running and not self.ready()
