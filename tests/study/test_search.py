"""Search by racing: which trainings it saves, and that nothing that a table shows is missing.

Trainings are replaced by score tables of known separation, so that which candidate is best, and by
how much, is known; everything else (plan, selection, graph, files) is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from preceptor.config.yaml_file import parse_config
from preceptor.execution.graph import Graph
from preceptor.study.alphas import PAPER_ALPHA
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.search import preferred, survivors
from preceptor.study.selection import Candidate, choose
from preceptor.study.setting import Setting
from preceptor.study.stages import first_steps
from preceptor.study.steps import Arm, Evaluate, Select, Selection, Train
from tests.study.scored_plan import ALPHAS, SEEDS, final, finished, scored_plan, table


def searched(plan: Plan) -> set[tuple[str, float, int]]:
    """Runs of the roles whose α is chosen."""
    roles = {selection.role for selection in final(plan)} - {"teacher"}
    return {
        (member.arm.role, member.arm.alpha, member.seed)
        for member in plan.members
        if member.arm.role in roles
    }


def best_at(alpha: float) -> Callable[[Arm], float]:
    """A clear winner; the further α is from it, the worse."""
    return lambda arm: 3.0 - 4.0 * abs(arm.alpha - alpha)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, Train]]:
    """Every candidate with every seed."""
    return finished(tmp_path_factory.mktemp("grid"), best_at(0.3))


@pytest.mark.parametrize("search", ["racing", "halving"])
def test_the_same_is_chosen_with_fewer_trainings(
    tmp_path: Path, grid: tuple[Plan, dict[str, Train]], search: str
) -> None:
    whole, every = grid
    plan, some = finished(tmp_path / search, best_at(0.3), search=search)
    assert {key: one.winner for key, one in final(plan).items()} == {
        key: one.winner for key, one in final(whole).items()
    }
    assert searched(plan) < searched(whole)
    assert len(searched(plan)) <= 0.8 * len(searched(whole))
    assert len(some) < len(every)
    reason = plan.choices[Selection("", "student", "test_byobnet")].reason
    after = {"racing": 4, "halving": 2}[search]  # two seeds alone reject little
    assert f"α 0.9 after {after} of {SEEDS} seeds" in reason
    # No test set is opened for a candidate that was dropped.
    scored = {step.work.run for step in plan.steps.values() if isinstance(step.work, Evaluate)}
    students = {key for key, one in some.items() if one.arm.role == "student"}
    assert {some[key].arm.alpha for key in students & scored} == {0.3, 0.1}  # 0.1: the probes


def test_what_tables_show_has_every_seed(tmp_path: Path) -> None:
    plan, _ = finished(tmp_path, best_at(0.9), search="halving")
    seeds: dict[tuple[str, float], set[int]] = {}
    for member in plan.members:
        seeds.setdefault((member.arm.role, member.arm.alpha), set()).add(member.seed)
    # α 0.5 of Baseline 1 is in every table, although it was dropped.
    for arm in (
        ("baseline1", 0.9),
        ("baseline1", PAPER_ALPHA),
        ("baseline2", 1.0),
        ("student", 0.9),
        ("centre", 0.9),
        ("ceiling", 0.9),
    ):
        assert seeds[arm] == set(range(SEEDS)), arm
    assert seeds["student", 0.3] == {0, 1}
    for selection, choice in final(plan).items():
        if selection.role != "teacher":
            assert {row["alpha"] for row in choice.table} >= set(ALPHAS)
            assert choice.setting == Setting(0.9)


def test_candidates_that_validation_cannot_tell_apart_all_stay_in_a_race(
    tmp_path: Path, grid: tuple[Plan, dict[str, Train]]
) -> None:
    def equal(arm: Arm) -> float:
        return 1.0

    whole, _ = grid
    plan, _ = finished(tmp_path / "racing", equal, search="racing")
    assert searched(plan) == searched(whole)
    plan, _ = finished(tmp_path / "halving", equal, search="halving")
    assert len(searched(plan)) <= 0.65 * len(searched(whole))


@pytest.mark.parametrize(("seeds", "rungs"), [(1, (1,)), (2, (2,)), (3, (2, 3)), (9, (2, 4, 8, 9))])
def test_rungs(tmp_path: Path, seeds: int, rungs: tuple[int, ...]) -> None:
    values = {"manifest": "m.csv", "teachers": ["a"], "students": ["a"], "seeds": seeds}
    assert parse_config(values | {"search": "racing"}, StudyConfig).rungs == rungs
    assert parse_config(values, StudyConfig).rungs == (seeds,)


def test_survivors_are_ordered_by_the_rule() -> None:
    def candidate(name: str, alpha: float, separation: float, agreement: float) -> Candidate:
        return Candidate(
            name, Setting(alpha), [table(separation, seed) for seed in range(3)], agreement
        )

    some = [
        candidate("equal, agrees", 0.5, 2.0, 0.9),
        candidate("equal, small", 0.1, 2.0, 0.2),
        candidate("worse", 0.3, 0.2, 1.0),
    ]
    for rule, first in (("guided", "equal, agrees"), ("val_auc", "equal, small")):
        choice = choose(some, classes=["marked", "plain"], positive="marked", rule=rule)  # type: ignore[arg-type]
        assert preferred(choice, rule)[0] == choice.winner == first  # type: ignore[arg-type]
        assert set(survivors(choice, rule, "racing")) == {"equal, agrees", "equal, small"}  # type: ignore[arg-type]
        assert survivors(choice, rule, "halving")[0] == first  # type: ignore[arg-type]


def started_again(plan: Plan, **changes: object) -> Plan:
    """A plan of the finished runs of another one, with its choices and other settings."""
    study = plan.protocol.study.model_copy(update=changes)
    known = {selection.name: choice for selection, choice in plan.choices.items()}
    again = Plan(replace(plan.protocol, study=study), remembered=known)
    graph = Graph(first_steps(again))
    while (step := graph.take()) is not None:
        if isinstance(step.work, Select):
            graph.add(step.work.choose())
        graph.finish(step.id)
    return again


def test_candidates_that_a_study_had_once_are_not_called_dropped(tmp_path: Path) -> None:
    plan, _ = finished(tmp_path, best_at(0.3), search="racing")
    student = Selection("", "student", "test_byobnet")
    before = plan.choices[student]
    left = [row["alpha"] for row in before.table if row["seeds"] == SEEDS]
    assert len(left) < len(ALPHAS)
    assert "Dropped" in before.reason
    now = started_again(plan, alphas=tuple(left)).choices[student]
    assert now.setting == before.setting
    assert "Dropped" not in now.reason
    assert [row["alpha"] for row in now.table] == left


def test_a_second_start_remembers_every_comparison(tmp_path: Path) -> None:
    plan, _ = finished(tmp_path, best_at(0.3), search="halving")
    again = started_again(plan)
    assert again.choices == plan.choices
    assert all(again.choices[key] is not None for key in plan.choices)
    reason = again.choices[Selection("", "student", "test_byobnet")].reason
    assert reason.count("Dropped") == 1


def test_comparisons_before_the_last_do_not_wait_for_the_students(tmp_path: Path) -> None:
    """Only the choice itself is followed by scores of test sets, which wait for the Students."""
    steps = [step for step in first_steps(scored_plan(tmp_path, search="racing")) if step.needs]
    waits = {
        step.id: [need for need in step.needs if need.startswith("select:")]
        for step in steps
        if step.kind == "select"
    }
    assert waits
    assert not any(waits.values()), waits
