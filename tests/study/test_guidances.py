"""Ways of guiding: every role is given the best one on validation, with its own α."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from preceptor.config.files import parse_config
from preceptor.errors import InputError
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.plan import Plan, outline
from preceptor.study.protocol import Protocol, teachers_of
from preceptor.study.steps import Arm, Evaluate, Role, Step, Train
from preceptor.study.workspaces import Workspaces
from tests.datasets import squares
from tests.study.scored_plan import finished

WAYS: dict[str, Any] = {
    "l2": {},
    "cells": {"distance": "cells", "cam_class": "decision", "alphas": [0.3, 0.05]},
}
STUDY: dict[str, Any] = {
    "manifest": "m.csv",
    "positive": "marked",
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "guidances": WAYS,
}


def best(of: dict[Role, Setting]) -> Callable[[Arm], float]:
    """Separation of the classes: large at the given setting of each role."""

    def separation(arm: Arm) -> float:
        return 3.0 if arm.setting == of.get(arm.role, Setting(0.9, "l2")) else 1.0

    return separation


def test_every_role_gets_its_own_way_and_alpha(tmp_path: Path) -> None:
    wanted: dict[Role, Setting] = {
        "student": Setting(0.05, "cells"),
        "baseline1": Setting(0.5, "l2"),
        "ceiling": Setting(0.3, "cells"),
        "centre": Setting(0.1, "l2"),
    }
    plan, trained = finished(tmp_path, best(wanted), guidances=WAYS, seeds=2)
    for role, setting in wanted.items():
        assert plan.setting_of(role, "test_byobnet") == setting, role
    configs = {(one.arm.role, one.arm.setting): one.config.training for one in trained.values()}
    student = configs["student", Setting(0.05, "cells")]
    assert (student.distance, student.cam_class) == ("cells", "decision")
    other = configs["student", Setting(0.5, "l2")]
    assert (other.distance, other.cam_class) == ("l2", "label")
    # Teachers have the settings of the study, probe Students the first way.
    (teacher, *_) = plan.members_of("teacher")
    assert trained[teacher.run].config.training.distance == "l2"
    assert Setting(0.1, "l2") in {one.arm.setting for one in trained.values()}
    # Only the selected settings, Baseline 1 at the paper's α, and the probes are tested.
    tested = {
        (member.arm.role, member.arm.setting)
        for member in plan.members
        if any(
            isinstance(step.work, Evaluate) and step.work.run == member.run
            for step in plan.steps.values()
        )
    }
    shown = {
        *wanted.items(),
        ("baseline1", Setting(0.5, "l2")),
        ("baseline2", Setting(1.0, "l2")),
    }
    assert {one for one in tested if one[0] not in ("teacher", "mapper")} <= shown | {
        ("centre", Setting(0.1, "l2"))
    }


def test_baseline_2_has_no_selection(tmp_path: Path) -> None:
    ways = {"a": {}, "b": {"distance": "mse", "alphas": [0.1]}}
    plan, trained = finished(tmp_path, best({}), guidances=ways, seeds=2)
    assert plan.setting_of("baseline2", "test_byobnet") == Setting(1.0, "a")
    assert plan.setting_choice("baseline2", "test_byobnet") is None
    assert sum(one.arm.role == "baseline2" for one in trained.values()) == 2


def test_grids() -> None:
    study = parse_config(STUDY | {"alphas": [0.5, 0.1]}, StudyConfig)
    assert study.settings == (
        Setting(0.5, "l2"),
        Setting(0.1, "l2"),
        Setting(0.3, "cells"),
        Setting(0.05, "cells"),
    )
    assert study.baseline_settings == study.settings
    assert study.plain_setting == Setting(1.0, "l2")
    assert study.probe_settings == (Setting(0.5, "l2"), Setting(0.1, "l2"))
    other = parse_config(STUDY | {"guidances": {"kl": {"distance": "kl"}}}, StudyConfig)
    assert [one.alpha for one in other.settings] == [0.01, 0.05, 0.1, 0.25, 0.5, 0.9]
    none = parse_config(STUDY | {"guidances": {}, "alphas": [0.3]}, StudyConfig)
    assert none.settings == (Setting(0.3),)
    assert none.baseline_settings == (Setting(0.3), Setting(0.5))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"guidances": {"a/b": {}}}, "not a valid name"),
        ({"guidances": {"x": {"alphas": [0.1, 0.1]}}}, "guidances.x.alphas has duplicate values"),
        (
            {"guidances": {"x": {"distance": "cells"}}, "training": {"cam_class": "predicted"}},
            "guidances.x: ",
        ),
        ({"guidances": {"x": {"colour": 1}}}, "colour"),
        ({"controls": ["dfr"]}, "dfr_set"),
        ({"dfr_set": "val"}, "dfr_set"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises((InputError, ValidationError), match=told):
        parse_config(STUDY | changes, StudyConfig)


def arm(step: Step) -> Arm:
    assert isinstance(step.work, Train)
    return step.work.arm


def protocol(folder: Path, **changes: Any) -> Protocol:
    values = STUDY | {"manifest": str(squares(folder / "data"))} | changes
    study = parse_config(values, StudyConfig)
    return Protocol(study, Workspaces.of_study(study, folder / "store"), folder / "store")


def test_the_last_layer_is_trained_again_after_baseline_2(tmp_path: Path) -> None:
    one = protocol(tmp_path, controls=["dfr"], dfr_set="val")
    teacher = teachers_of(one.study)[0]
    base, run = one.control("dfr", teacher, "test_byobnet", Setting(0.05, "cells"), 0)
    assert arm(run).setting == arm(base).setting == Setting(1.0, "l2")
    assert base.id == one.baseline2("test_byobnet", 0).id
    assert run.needs == (base.id,)
    assert run.id != base.id
    assert isinstance(run.work, Train)
    assert run.work.config.last_layer == "val"
    assert run.cost < base.cost


def test_runs_from_the_weights_of_a_mapper(tmp_path: Path) -> None:
    one = protocol(tmp_path, mapper="start", guidances={})
    teacher = next(one for one in teachers_of(one.study) if one.kind == "mapper")
    chain = one.student(teacher, "test_byobnet", Setting(0.1), 1)
    started = one.from_mapper(chain, 1)
    mapper, run = started[-2:]
    assert mapper.id == one.mapper("mapper", "test_byobnet", 1).id
    assert run.id != chain[-1].id
    assert set(run.needs) == {*chain[-1].needs, mapper.id}
    assert isinstance(run.work, Train)
    assert run.work.arm.label == "student from mapper"
    assert run.work.config.weights_identity == mapper.id
    assert Path(run.work.config.weights).parent.parent.name == mapper.id
    plan = Plan(one)
    titles = [step.title for part in outline(plan) for step in part]
    for role in ("baseline1", "baseline2", "student"):
        rows = [title for title in titles if title.startswith(f"train {role} from mapper")]
        assert len(rows) == 3, role
