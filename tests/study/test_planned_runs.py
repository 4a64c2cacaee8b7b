from __future__ import annotations

import math
from pathlib import Path

import pytest

from preceptor.study.planned_runs import PlannedRun, read_planned_runs, write_planned_runs


def test_runs_come_back_as_they_were_written(tmp_path: Path) -> None:
    runs = [
        PlannedRun("a", ("baseline1", "teacher"), "test_vit", 1.0, 0),
        PlannedRun("b", ("student",), "test_vit", 0.5, 1, "skin"),
    ]
    write_planned_runs(runs, tmp_path)
    assert read_planned_runs(tmp_path) == runs


def test_an_alpha_that_follows_the_losses_comes_back(tmp_path: Path) -> None:
    write_planned_runs([PlannedRun("a", ("variant",), "test_vit", math.nan, 0)], tmp_path)
    (found,) = read_planned_runs(tmp_path) or ()
    assert math.isnan(found.alpha)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"id": "a"}]', "3"])
def test_a_damaged_list_is_no_list(tmp_path: Path, content: str) -> None:
    assert read_planned_runs(tmp_path) is None
    (tmp_path / "planned_runs.json").write_text(content)
    assert not read_planned_runs(tmp_path)
