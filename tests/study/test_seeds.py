"""Seeds of a study: their list, and when candidates are compared."""

from __future__ import annotations

import pytest

from preceptor.study.seeds import (
    MOST_SEEDS,
    AutoSeeds,
    SeedLooks,
    every_seed,
    seed_problems,
    selection_rungs,
)


def test_the_seeds_are_counted_listed_or_up_to_the_last_look() -> None:
    assert every_seed(3) == (0, 1, 2)
    assert every_seed((5, 2)) == (5, 2)
    assert every_seed(AutoSeeds(auto=SeedLooks(looks=(2, 4)))) == (0, 1, 2, 3)


def test_too_many_seeds_are_a_problem_with_its_remedy() -> None:
    assert seed_problems(MOST_SEEDS) == seed_problems((MOST_SEEDS + 1,)) == []
    (problem,) = seed_problems(MOST_SEEDS + 1)
    assert problem.endswith(f"for one seed with this number write [{MOST_SEEDS + 1}]")
    assert seed_problems(AutoSeeds(auto=SeedLooks(looks=(3, 2), width=3.0))) != []


@pytest.mark.parametrize("count", range(1, 20))
def test_candidates_are_compared_after_doubled_numbers_and_all_seeds(count: int) -> None:
    assert selection_rungs(count, all_at_once=True) == (count,)
    rungs = selection_rungs(count, all_at_once=False)
    assert rungs == (*(n for n in (2, 4, 8, 16) if n < count), count)
