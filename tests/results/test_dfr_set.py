"""Control dfr on its own validation set: it is not compared there, and has no threshold of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from preceptor.report.tables import fixed_rate_table, set_table, source_table
from preceptor.results.domain import Results
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm
from tests.studies import gather, scored_study

BACKBONE, PRIMARY, OWN = "test_byobnet", "test-unseen", "val-clean"
EFFECTS = {"dfr": 3.0, "ceiling": 4.0, "student": 1.5, "baseline1": 0.3, "baseline2": 0.5}


def effect(arm: Arm, seed: int) -> float:
    """The control is the best of all but the ceiling."""
    return EFFECTS.get(arm.label, 0.4) + 0.01 * seed


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Results]:
    splits = {"train": 12, "val": 24, OWN: 24, PRIMARY: 24}
    folder = tmp_path_factory.mktemp("both")
    plan = scored_study(folder, effect, splits, controls=("dfr",), dfr_set=OWN)
    return plan, gather(plan)


@pytest.mark.parametrize(("name", "best"), [(OWN, "student"), ("val", "dfr"), (PRIMARY, "dfr")])
def test_it_is_not_the_best_on_its_own_set(
    both: tuple[Plan, Results], name: str, best: str
) -> None:
    plan, results = both
    titles = {row.key: row.title for row in results.setup.rows}
    table = set_table(plan, results, name)
    assert table is not None
    assert [line.heading for line in table.lines if line.cells[0].best] == [titles[best]]
    notes = {line.heading: line.cells[0].note for line in table.lines}
    assert ("trained on images of this set" in notes[titles["dfr"]]) == (name == OWN)
    by_source = source_table(results, name, BACKBONE)
    assert by_source is not None
    place = [row.key for row in results.setup.rows].index(best)
    for line in by_source.lines:
        assert [cell.best for cell in line.cells].index(True) == place


def test_it_is_not_the_best_on_a_set_that_borrows_images_of_its_own(
    both: tuple[Plan, Results],
) -> None:
    record = both[1].record
    results = replace(both[1], record=replace(record, setup=replace(record.setup, negatives=OWN)))
    assert not results.may_be_best("dfr", "val")
    assert results.may_be_best("student", "val")
    assert results.may_be_best("dfr", PRIMARY)


def test_it_has_no_threshold(both: tuple[Plan, Results]) -> None:
    plan, results = both
    kinds = {role: set(part["kind"]) for role, part in results.rates.groupby("role", observed=True)}
    assert kinds["student"] == kinds["baseline2"] == {"roc", "fixed"}
    assert kinds["dfr"] == {"roc"}
    table = fixed_rate_table(plan.protocol.study, results, PRIMARY, BACKBONE)
    assert table is not None
    assert not any("last layer" in line.heading for line in table.lines)
    assert f"has none: it is trained on {OWN}" in table.caption
