"""The steps that a study consists of, and what each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from preceptor.config.run import Method, RiseSettings, RunConfig
from preceptor.inference.shards import Part

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
