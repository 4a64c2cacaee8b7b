"""Teachers and α are chosen together, by Students that are used again in stage 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.results.domain import gather
from preceptor.study.config import Setting
from preceptor.study.plan import Plan
from preceptor.study.protocol import Teacher
from preceptor.study.selection import Candidate, choose
from preceptor.study.steps import Arm, Evaluate
from tests.studies import scored_study
from tests.study.scored_plan import finished, table

SPLITS = {"train": 16, "val": 8, "test": 8}
CLASSIFIER = Teacher("test_byobnet", "human", 0.5, "cam")
MAPPER = Teacher("test_byobnet", "mapper", 0.0, "cells")


def students(plan: Plan) -> dict[tuple[str, float], set[str]]:
    """Ids of the Students of a study, by Teacher and α."""
    found: dict[tuple[str, float], set[str]] = {}
    for member in plan.members_of("student"):
        found.setdefault((member.arm.teacher, member.arm.alpha), set()).add(member.run)
    return found


def test_a_teacher_is_chosen_at_the_alpha_at_which_its_student_is_best(tmp_path: Path) -> None:
    """At the α of 0.1 the classifier is ahead; over all α the mapper is."""
    by = {(CLASSIFIER, 0.1): 1.5, (CLASSIFIER, 0.5): 1.5, (MAPPER, 0.1): 0.2, (MAPPER, 0.5): 4.0}

    def separation(arm: Arm) -> float:
        known = {(str(teacher), alpha): value for (teacher, alpha), value in by.items()}
        return known.get((arm.teacher, arm.alpha), 1.0)

    plan, _ = finished(tmp_path, separation, mapper=True, alphas=[0.5, 0.1], seeds=3)
    assert plan.winner() == MAPPER
    choice = plan.teacher_choice
    assert choice is not None
    assert choice.winner == "test_byobnet mapper; Student α 0.5"
    assert len(choice.table) == 4
    assert plan.setting_of("student", "test_byobnet") == Setting(0.5)
    assert plan.probe_setting_of(CLASSIFIER) in (Setting(0.1), Setting(0.5))
    assert plan.probe_setting_of(MAPPER) == Setting(0.5)
    # Every Student of stage 2 is one of stage 1.
    assert {key: len(runs) for key, runs in students(plan).items()} == {
        (str(teacher), alpha): 3 for teacher, alpha in by
    }


@pytest.mark.parametrize("rule", ["highest", "guided", "val_auc"])
@pytest.mark.parametrize("draws", [False, True])
def test_a_mapper_that_is_tied_with_the_best_is_preferred(rule: Any, draws: bool) -> None:
    def one(name: str, apart: float, preferred: bool, alpha: float = 0.5) -> Candidate:
        tables = [table(apart + 0.05 * (-1) ** seed, seed) for seed in range(4)]
        agreement = 0.2 if preferred else 0.9
        return Candidate(name, Setting(alpha), tables, agreement, preferred=preferred)

    ahead, close = one("classifier", 1.02, False), one("mapper", 1.0, True)
    far = one("weak mapper", 0.2, True)
    words: Any = {"classes": ["marked", "plain"], "positive": "marked", "draws": draws}
    noisy = [
        Candidate(
            close.name,
            close.setting,
            [table(1.0 + 0.3 * np.cos(seed), seed + 50) for seed in range(4)],
            0.2,
            preferred=True,
        )
    ]
    chosen = choose([ahead, *noisy, far], **words, rule=rule)
    assert chosen.winner == "mapper"
    assert "mappers are preferred" in chosen.reason
    assert [row["tied"] for row in chosen.table] == [True, True, False]
    assert choose([ahead, far], **words, rule=rule).winner == "classifier"


def test_the_best_of_several_tied_mappers_is_chosen_by_the_rule() -> None:
    frames = {name: [table(1.0, seed) for seed in range(3)] for name in "abc"}
    some = [
        Candidate("a", Setting(0.9), frames["a"], 0.9),
        Candidate("b", Setting(0.5), frames["b"], 0.8, preferred=True),
        Candidate("c", Setting(0.1), frames["c"], 0.1, preferred=True),
    ]
    words: Any = {"classes": ["marked", "plain"], "positive": "marked"}
    assert choose(some, **words, rule="guided").winner == "b"
    assert choose(some, **words, rule="val_auc").winner == "c"
    assert choose(some, **words, rule="highest").winner == "c"  # equal values: the smaller α


def test_a_large_grid_is_compared_at_three_alphas(tmp_path: Path) -> None:
    grid = [0.9, 0.5, 0.3, 0.1, 0.05]
    plan, trained = finished(tmp_path, lambda arm: 1.0, data_driven=True, alphas=grid, seeds=2)
    assert [one.alpha for one in plan.protocol.study.probe_settings] == [0.9, 0.1, 0.05]
    winner = plan.winner()
    alphas = {
        work.arm.alpha
        for work in trained.values()
        if work.arm.role == "student" and work.arm.teacher != str(winner)
    }
    assert alphas == {0.9, 0.1, 0.05}


def test_one_teacher_needs_no_comparison(tmp_path: Path) -> None:
    plan, trained = finished(tmp_path, lambda arm: 1.0, alphas=[0.5, 0.1], seeds=2)
    choice = plan.teacher_choice
    assert choice is not None
    assert (choice.winner, choice.table) == (str(CLASSIFIER), ())
    assert sum(work.arm.role == "student" for work in trained.values()) == 4


@pytest.mark.parametrize("probe", [None, "test_resnet"])
def test_teachers_are_compared_each_at_its_best_alpha(tmp_path: Path, probe: str | None) -> None:
    values: dict[str, Any] = {
        "probe": probe,
        "students": ("test_byobnet", "test_resnet"),
        "alphas": (0.9, 0.5, 0.1),
        "data_driven": True,
        "controls": (),
        "ceiling": False,
        "primary": "test",
        "seeds": 2,
    }

    def effect(arm: Arm, seed: int) -> float:
        best = 0.5 if "data-driven" in arm.teacher else 0.9
        return 3.0 * (arm.alpha == best) + seed / 10

    made = scored_study(tmp_path, effect, SPLITS, **values)
    compared = gather(made).comparisons.set_index("question").loc[["RQ1"]]
    assert compared["backbone"].tolist() == [probe or "test_byobnet"]
    assert compared["n"].tolist() == [2]
    assert compared["alpha_a"].tolist() == [0.9]
    assert compared["alpha_b"].tolist() == [0.5]


def test_a_budget_chooses_alpha_at_each_number_of_annotations(tmp_path: Path) -> None:
    def separation(arm: Arm) -> float:
        return 3.0 if arm.alpha == {None: 0.9, 2: 0.1, 4: 0.5}[arm.annotated] else 0.5

    grid = [0.9, 0.5, 0.1]
    plan, _ = finished(tmp_path, separation, alphas=grid, seeds=2, budget=[2, 4])
    for role in ("baseline1", "student"):
        for size, alpha in {0: 0.9, 2: 0.1, 4: 0.5}.items():
            assert plan.setting_of(role, "test_byobnet", size) == Setting(alpha)
        runs = {
            (member.arm.alpha, member.seed)
            for member in plan.members
            if member.arm.role == role and member.arm.annotated == 4
        }
        assert len(runs) == 6
    names = {selection.name for selection in plan.choices}
    assert {"student @ 2:test_byobnet", "baseline1 @ 4:test_byobnet"} <= names
    tested = {step.work.run for step in plan.steps.values() if isinstance(step.work, Evaluate)}
    of_budget = {
        (member.arm.role, member.arm.annotated, member.arm.alpha)
        for member in plan.members
        if member.run in tested and member.arm.annotated and member.arm.role != "teacher"
    }
    expected = {(role, 2, 0.1) for role in ("baseline1", "student")}
    assert of_budget == expected | {(role, 4, 0.5) for role in ("baseline1", "student")}


def test_the_table_of_a_budget_has_the_chosen_alpha(tmp_path: Path) -> None:
    def effect(arm: Arm, seed: int) -> float:
        return (3.0 if arm.alpha == {None: 0.9, 4: 0.5}[arm.annotated] else 0.0) + seed / 10

    values: dict[str, Any] = {"alphas": (0.9, 0.5), "budget": (4,), "controls": ()}
    made = scored_study(tmp_path, effect, SPLITS, primary="test", ceiling=False, **values)
    found = gather(made).budget
    assert isinstance(found, pd.DataFrame)
    lines = found.set_index("line")
    assert lines.loc["student", "mean"] > 0.9
    assert lines.loc["baseline1", "mean"] > 0.9
