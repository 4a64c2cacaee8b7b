"""The Students by which Teachers are compared are those whose test sets are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preceptor.results.domain import gather
from preceptor.study.setting import Setting
from tests.studies import scored_study

SPLITS = {"train": 16, "val": 8, "test": 8}


@pytest.mark.parametrize("plan", ["staged", "full"])
@pytest.mark.parametrize("probe", [None, "test_resnet"])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_teachers_are_compared_with_either_plan(
    tmp_path: Path, plan: str, probe: str | None, alpha: float | None
) -> None:
    values: dict[str, Any] = {
        "plan": plan,
        "probe": probe,
        "probe_alpha": alpha,
        "students": ("test_byobnet", "test_resnet"),
        "alphas": (0.9, 0.5, 0.1),
        "data_driven": True,
        "controls": (),
        "ceiling": False,
        "primary": "test",
        "seeds": 2,
    }
    made = scored_study(tmp_path, lambda arm, seed: arm.alpha + seed / 10, SPLITS, **values)
    compared = gather(made).comparisons.set_index("question").loc[["RQ1"]]
    assert compared["backbone"].tolist() == [probe or "test_byobnet"]
    assert compared["n"].tolist() == [2]
    usual = 0.9 if plan == "full" else 0.1
    assert made.protocol.study.probe_setting == Setting(alpha or usual)
    assert compared["alpha_a"].tolist() == [alpha or usual]
