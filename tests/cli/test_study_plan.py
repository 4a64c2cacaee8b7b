"""The printed plan of a study counts what is left with the choices that were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.cli.study_file import print_plan
from preceptor.study.plan import StudyPlan
from preceptor.study_folder import write_progress
from tests.datasets import squares
from tests.studies import study, walk, write_down


@pytest.mark.parametrize("remembered", [True, False])
def test_nothing_is_left_of_a_finished_study(tmp_path: Path, remembered: bool) -> None:
    """Its choices are not those that the plan of a new study assumes."""
    manifest = squares(tmp_path / "data", size=(8, 8))
    config = study(manifest, seeds=2, alphas=(0.5, 0.1), data_driven=True)
    plan = StudyPlan.of(walk(config, tmp_path / "store", compute=False))
    write_down(plan, lambda arm, seed: 3 - abs(arm.alpha - 0.1) + ("data" in arm.teacher))
    if remembered:
        write_progress(plan, tmp_path)
    lines: list[str] = []
    print_plan(config, tmp_path, 1, lines.append)
    left = [line for line in lines if "left:" in line]
    assert len(left) == 2
    assert all("left: 0 of " in line for line in left), left
