"""Steps that make the maps of a model, whole or in shards."""

from __future__ import annotations

from dataclasses import replace

from preceptor.inference.shards import Shard
from preceptor.study.steps import JoinMaps, MakeMaps, Step


def map_steps(
    work: MakeMaps,
    shards: tuple[Shard, ...],
    identity: str,
    name: str,
    needs: tuple[str, ...],
    cost: float,
    *,
    join_one: bool = False,
) -> list[Step]:
    """Steps that make the maps of a model: one, or one for each shard and one that joins them.

    Args:
        work: The work; its shard and `joined` are replaced.
        shards: All shards.
        identity: Id of the step that leaves the map store.
        name: Name of the model.
        needs: Ids of the steps that come first.
        cost: Cost of an image.
        join_one: Whether a single shard has a step of its own beside the join.
    """
    if len(shards) == 1 and not join_one:
        (only,) = shards
        whole = replace(work, shard=only, joined="")
        return [Step(identity, whole, name, needs, cost=(only.stop - only.start) * cost)]
    made = [
        Step(
            shard_id(identity, place),
            replace(work, shard=shard, joined=identity),
            f"{name}, shard {place + 1} of {len(shards)}",
            needs,
            cost=(shard.stop - shard.start) * cost,
        )
        for place, shard in enumerate(shards)
    ]
    needs = (*needs, *(step.id for step in made))
    return [*made, Step(identity, JoinMaps(shards), name, needs)]


def shard_id(joined: str, place: int) -> str:
    """Id of the step that makes the maps of one shard."""
    return f"{joined}-{place:05d}"
