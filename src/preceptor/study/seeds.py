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
