"""Number of seeds of a study: fixed, a list, or found by looks at the primary comparisons."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
)

from preceptor.config.settings import Positive, Settings

# A typing error must not become a plan of more steps than memory holds.
MOST_SEEDS = 1_000


class SeedLooks(Settings):
    """Number of seeds by the width of intervals.

    Args:
        width: A study stops after the first look at which the intervals of all primary comparisons
            (Student minus each baseline, for every backbone) are at most this wide: high − low, of
            the AUC difference, corrected for the looks (`sequential_level`).
        looks: Numbers of seeds after which the intervals are computed, increasing. The last is the
            limit.
    """

    width: float = 0.03
    looks: tuple[int, ...] = (3, 5, 8, 12, 20)

    def problems(self) -> list[str]:
        """Invalid values, each with its remedy."""
        wrong = []
        if not 0 < self.width < 2:
            wrong.append(
                f"seeds.auto.width: {self.width:g} is not the width of an interval of AUC "
                "differences; write a number above 0 and below 2, as in 0.03"
            )
        looks = list(self.looks)
        if len(looks) < 2 or looks[0] < 2 or looks != sorted(set(looks)):
            wrong.append(
                f"seeds.auto.looks: {looks} are not two or more increasing numbers from 2 up; "
                "write as in [3, 5, 8]"
            )
        if looks and looks[-1] > MOST_SEEDS:
            wrong.append(
                f"seeds.auto.looks: {looks[-1]:,} is above the maximum of {MOST_SEEDS:,}; "
                "write a smaller limit"
            )
        return wrong


class AutoSeeds(Settings):
    """Seeds 0, 1, … up to a number that depends on the results.

    Args:
        auto: Width of the intervals and looks.
    """

    auto: SeedLooks = SeedLooks()


def _auto_seeds(given: object) -> object:
    """`auto` as the settings that it stands for."""
    return {"auto": {}} if given == "auto" else given


Seeds = Annotated[
    Positive | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | AutoSeeds,
    BeforeValidator(_auto_seeds),
]


def seed_problems(seeds: Seeds) -> list[str]:
    """Invalid numbers of seeds, each with its remedy."""
    if isinstance(seeds, AutoSeeds):
        return seeds.auto.problems()
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        return [
            f"seeds: {seeds:,} is above the maximum of {MOST_SEEDS:,}; for one seed with this "
            f"number write [{seeds}]"
        ]
    return []


def every_seed(seeds: Seeds) -> tuple[int, ...]:
    """All seeds, for `auto` up to the limit.

    Example:
        >>> every_seed(2), every_seed((4, 7)), len(every_seed(AutoSeeds()))
        ((0, 1), (4, 7), 20)
    """
    if isinstance(seeds, AutoSeeds):
        return tuple(range(seeds.auto.looks[-1]))
    return tuple(range(seeds)) if isinstance(seeds, int) else seeds


def selection_rungs(count: int, *, all_at_once: bool) -> tuple[int, ...]:
    """Numbers of seeds after which the candidates of a selection are compared.

    Two seeds are the fewest with an interval over seeds; the last comparison has all seeds of the
    selection.

    Args:
        count: Number of seeds of the selection.
        all_at_once: Whether there is no comparison before the last.

    Example:
        >>> selection_rungs(10, all_at_once=False), selection_rungs(10, all_at_once=True)
        ((2, 4, 8, 10), (10,))
    """
    rung = 2
    found = []
    while not all_at_once and rung < count:
        found.append(rung)
        rung *= 2
    return (*found, count)
