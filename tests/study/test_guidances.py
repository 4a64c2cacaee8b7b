"""Ways of guiding, Teachers and α are chosen on validation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from preceptor.config.files import parse_config
from preceptor.errors import InputError
from preceptor.maps.store import read_store
from preceptor.models.build import load_model
from preceptor.report.tables import guidance_tables
from preceptor.results.comparisons import compare
from preceptor.study.checks import check_study
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.plan import Plan, outline
from preceptor.study.protocol import Protocol, Teacher, teachers_of, training_of
from preceptor.study.selection import Candidate, choose
from preceptor.study.steps import Arm, Evaluate, Role, Step, Train
from preceptor.study.workspaces import Workspaces
from tests.datasets import squares
from tests.studies import gather, run_serially, scored_study, study
from tests.study.scored_plan import finished, table

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

NONE = Setting(1.0)  # of a run without maps


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
        assert setting in plan.best_by_way(role, "test_byobnet")
    configs = {(one.arm.role, one.arm.setting): one.config.training for one in trained.values()}
    student = configs["student", Setting(0.05, "cells")]
    assert (student.distance, student.cam_class) == ("cells", "decision")
    other = configs["student", Setting(0.5, "l2")]
    assert (other.distance, other.cam_class) == ("l2", "label")
    # Teachers have the settings of the study, probe Students the first way.
    (teacher, *_) = plan.members_of("teacher")
    assert trained[teacher.run].config.training.distance == "l2"
    assert Setting(0.1, "l2") in {one.arm.setting for one in trained.values()}
    # Only the selected settings, each way at its best α, Baseline 1 at the paper's α, and the
    # probes are tested.
    tested = {
        (member.arm.role, member.arm.setting)
        for member in plan.members
        if any(
            isinstance(step.work, Evaluate) and step.work.run == member.run
            for step in plan.steps.values()
        )
    }
    shown = {*wanted.items(), ("baseline1", Setting(0.5, "l2")), ("baseline2", Setting(1.0, "l2"))}
    shown |= {
        (role, setting)
        for role in ("student", "ceiling", "centre")
        for setting in plan.best_by_way(role, "test_byobnet")
    }
    assert {one for one in tested if one[0] != "teacher"} == shown  # which is a Baseline 1


def test_grids() -> None:
    study = parse_config(STUDY | {"alphas": [0.5, 0.1]}, StudyConfig)
    assert study.settings == (
        Setting(0.5, "l2"),
        Setting(0.1, "l2"),
        Setting(0.3, "cells"),
        Setting(0.05, "cells"),
    )
    assert study.baseline_settings == study.settings
    assert study.plain_settings == (Setting(1.0, "l2"),)
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
        ({"guidances": {"x": {"method": "gradients"}}}, "not one of cyborg, evidence"),
        ({"guidances": {"x": {"method": "teach"}}}, "guidances.x: method teach takes"),
        ({"guidances": {"x": {"method": "rank", "distance": "mse"}}}, "x: distance is mse"),
        ({"guidances": {"x": {"method": "rank", "cam_class": "decision"}}}, "add `map: decision`"),
        ({"controls": [], "dfr_set": "val"}, "dfr_set"),
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


METHODS: dict[str, Any] = {
    "l2": {},
    "gals": {"method": "gradient", "preset": "gals"},
    "rank": {"method": "rank", "alphas": [0.5]},
    "no maps": {"method": "saliency_guided", "alphas": [0.5]},
}


def test_methods_have_their_own_grid_and_only_what_they_use_is_in_ids(tmp_path: Path) -> None:
    changes = {"guidances": METHODS, "alphas": [0.3], "training": {"distance": "mse"}}
    one = protocol(tmp_path, **changes)
    assert [setting.alpha for setting in one.study.settings] == [0.3, 0.1, 0.5, 0.9, 0.5, 0.5]
    assert training_of(one.study, "l2").distance == "mse"
    assert training_of(one.study, "gals").distance == "l2"
    assert training_of(one.study, "l2").method == "cyborg"
    teacher, student = teachers_of(one.study)[0], "test_byobnet"
    # One run, of all roles, whose loss has no maps, and which waits for none.
    ids = set()
    for chain in (
        one.student(teacher, student, Setting(0.5, "no maps"), 0),
        one.control("shuffled", teacher, student, Setting(0.5, "no maps"), 0),
        one.control("centre", teacher, student, Setting(0.5, "no maps"), 0),
        [one.ceiling(student, Setting(0.5, "no maps"), 0)],
    ):
        assert not chain[-1].needs
        ids.add(chain[-1].id)
    assert len(ids) == 1
    other = one.student(teacher, student, Setting(0.5, "rank"), 0)[-1]
    assert other.needs
    assert other.id not in ids
    assert (
        one.baseline2(student, NONE, 0).id
        == protocol(tmp_path / "b").baseline2(student, NONE, 0).id
    )


def test_a_study_of_three_classes_with_methods_and_a_mapper(tmp_path: Path) -> None:
    ways = METHODS | {"gals": METHODS["gals"] | {"alphas": [0.5]}}
    changes: dict[str, Any] = {"seeds": 1, "controls": ("shuffled",), "ceiling": False}
    changes |= {"positive": None, "mapper": True, "teacher_alphas": ()}
    manifest = squares(tmp_path / "data", classes=("none", "red", "blue"))
    config = study(manifest, guidances=ways, **changes)
    lines: list[str] = []
    result = run_serially(config, tmp_path / "study", lines.append)
    assert not result.failed
    assert not result.missing
    choices = json.loads((result.folder / "selection.json").read_text())
    for role in ("student", "baseline1", "shuffled"):
        candidates = choices[f"{role}:test_byobnet"]["table"]
        assert [one["guidance"] for one in candidates] == list(ways), role
        assert all(math.isfinite(one["value"]) for one in candidates), role
    rows = pd.read_csv(result.folder / "table.csv")
    assert set(rows.loc[rows["key"] == "student", "guidance"]) <= set(ways)
    page = " ".join((result.folder / "report.html").read_text().split())
    assert "(method gradient, gals, α grid 0.5)" in page
    assert "The guidance methods gradient, rank and saliency_guided have" in page
    assert "on test-unseen, guided by the Teacher&#39;s maps: each method at its best α" in page
    # The mapper has learned where marks are, whatever their class, and is no detector.
    runs = pd.read_csv(result.folder / "runs.csv")
    assert (
        runs.loc[runs["role"] == "student", ["selected_epoch_auc", "last_epoch_auc"]]
        .notna()
        .all(axis=None)
    )
    for mapper in runs.loc[runs["role"] == "mapper", "run"]:
        spec = load_model(result.folder / "store" / "runs" / mapper / "model").spec
        assert (spec.classes, spec.thresholds) == (("no mark", "mark"), {})
    assert "mapper" not in set(rows["key"])
    for folder in (result.folder / "store" / "maps").iterdir():
        store = read_store(folder)
        assert store.info.method == "cells"
        assert float(store.maps.max()) < 1, "probabilities"


def test_each_way_is_compared_with_its_own_shuffled_maps(tmp_path: Path) -> None:
    """Of two ways whose Students are equal, one is the better only with maps in their places."""
    by_role = {("student", "l2"): 0.0, ("shuffled", "l2"): 0.0, ("shuffled", "cells"): -0.2}

    def effect(arm: Arm, seed: int) -> float:
        return by_role.get((arm.role, arm.guidance), 0.0) + 0.01 * (seed % 3)

    ways = {"l2": {"alphas": [0.5]}, "cells": WAYS["cells"] | {"alphas": [0.3]}}
    splits = {"train": 12, "val": 8, "test-unseen": 40}
    few: dict[str, Any] = {"seeds": 3, "controls": ("shuffled", "centre")}
    plan = scored_study(tmp_path, effect, splits, guidances=ways, sources=False, **few)
    found = gather(plan)
    here = found.comparisons
    here = here[(here["question"] == "guidance") & (here["key_a"] == "student")]
    assert [*zip(here["a"], here["key_b"], strict=True)] == [
        (way, key) for key in ("shuffled", "centre", "baseline2") for way in ways
    ]
    mean = here.set_index(["a", "key_b"])["mean"]
    assert mean["l2", "shuffled"] == 0
    assert mean["cells", "shuffled"] > 0.01
    p = here.set_index(["a", "key_b"])[["p", "p_holm"]].loc[("cells", "shuffled")]
    assert p["p"] == p["p_holm"] / 2 == 2 / 2**3
    assert here.loc[here["key_b"] != "shuffled", "p_holm"].isna().all()
    figures = found.figures[
        ~((found.figures["role"] == "student") & (found.figures["guidance"] == "l2"))
    ]
    early = pd.DataFrame(compare(found.record, figures)).query("question == 'guidance'")
    early = early.set_index(["key_a", "a", "key_b"])["p_holm"]
    assert early["student", "cells", "shuffled"] == p["p_holm"], "two ways are planned"
    (table, ceiling) = guidance_tables(found)
    assert [line.heading for line in table.lines] == ["l2, α 0.5", "cells, α 0.3"]
    assert table.columns == [
        "AUC",
        "− shuffled",
        "p (Holm)",
        "− centered map",
        "− no maps",
        "Epochs",
        "Cost",
    ]
    assert ceiling.columns == ["AUC", "− centered map", "− no maps", "Epochs", "Cost"]
    assert not table.lines[0].cells[-1].note
    runs = found.runs.assign(gpu_memory=200.0)
    runs.loc[runs["role"] == "student", "gpu_memory"] = 300.0
    student, of_people = guidance_tables(replace(found, runs=runs))
    assert student.lines[0].cells[-1].note == "memory 1.50"
    assert of_people.lines[0].cells[-1].note == "memory 1.00"
    every = found.comparisons
    twin = (every["a"] == "cells") & (every["key_b"] == "shuffled")
    part, _ = guidance_tables(replace(found, comparisons=every[~twin]))
    assert [len(line.cells) for line in part.lines] == [len(part.columns)] * 2


def test_a_wrong_preset_is_a_problem_of_the_study(tmp_path: Path) -> None:
    ways = {"a": {"method": "rank", "preset": "ross"}}
    one = protocol(tmp_path, guidances=ways)
    with pytest.raises(InputError, match=r"guidances\.a: guidance rank: preset 'ross' is"):
        check_study(one.study, one.workspaces, networks=False)


def test_the_last_layer_is_trained_again_after_baseline_2(tmp_path: Path) -> None:
    one = protocol(tmp_path, controls=["dfr"], dfr_set="val")
    teacher = teachers_of(one.study)[0]
    (plain,) = one.study.plain_settings
    base, run = one.control("dfr", teacher, "test_byobnet", plain, 0)
    assert arm(run).setting == arm(base).setting == Setting(1.0, "l2")
    assert base.id == one.baseline2("test_byobnet", plain, 0).id
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
    expected = [step.kind for part in outline(Plan(plan.protocol)) for step in part]
    done = [step.kind for step in plan.steps.values()]
    for kind in ("train", "maps", "evaluate"):
        assert expected.count(kind) == done.count(kind), kind
    # Every Student of stage 2 is one of stage 1.
    assert {key: len(runs) for key, runs in students(plan).items()} == {
        (str(teacher), alpha): 3 for teacher, alpha in by
    }


@pytest.mark.parametrize("draws", [False, True])
def test_a_mapper_that_is_tied_with_the_best_is_preferred(draws: bool) -> None:
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
    chosen = choose([ahead, *noisy, far], **words)
    assert chosen.winner == "mapper"
    assert "mappers are preferred" in chosen.reason
    assert [row["tied"] for row in chosen.table] == [True, True, False]
    assert choose([ahead, far], **words).winner == "classifier"
    first = [
        Candidate(one.name, one.setting, one.scores[:1], 0.5, preferred=one is far)
        for one in (ahead, far)
    ]
    assert choose(first, **words).winner == "classifier"  # one draw has no interval


def test_teachers_are_compared_each_at_its_best_alpha(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "students": ("test_byobnet", "test_resnet"),
        "alphas": (0.9, 0.5),
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
    assert compared["backbone"].tolist() == ["test_byobnet"]
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


def test_a_grid_is_extended_while_its_end_is_best(tmp_path: Path) -> None:
    """The best of α is 0.003, outside of the grid; two α are a choice of the user."""

    def effect(arm: Arm, seed: int) -> float:
        return 2 - 0.3 * abs(math.log10(arm.alpha / 0.003)) + 0.01 * seed

    splits = {"train": 12, "val": 24, "test": 24}
    plan = scored_study(tmp_path / "three", effect, splits, alphas=[0.9, 0.5, 0.1], controls=())
    for role in ("student", "baseline1", "ceiling"):
        (choice,) = (one for of, one in plan.choices.items() if of.role == role)
        tried = sorted(row["alpha"] for row in choice.table)
        assert tried == [0.00137, 0.0122, 0.1, 0.5, 0.9], role
        assert choice.setting.alpha == 0.00137
    plan = scored_study(tmp_path / "two", effect, splits, alphas=[0.5, 0.1], controls=())
    assert {len(one.table) for of, one in plan.choices.items() if of.role == "student"} == {2}


def test_validation_selects_the_length_of_every_role(tmp_path: Path) -> None:
    """Of 6 and 12 steps, the baseline without maps is best with 6, guided runs with 12."""

    def effect(arm: Arm, seed: int) -> float:
        return 1 + (0.5 if (arm.steps == 6) == (arm.role in ("baseline2", "dfr")) else 0.0)

    plan = scored_study(
        tmp_path,
        effect,
        {"train": 12, "val": 24, "val-clean": 24, "test-unseen": 24},
        alphas=[0.5],
        controls=("mixed", "dfr"),
        training={"steps": [12, 6], "epochs": 2},
    )
    chosen = {of.role: one.setting.steps for of, one in plan.choices.items() if of.backbone}
    expected = dict.fromkeys(("student", "baseline1", "ceiling", "mixed"), 12)
    assert chosen == expected | dict.fromkeys(("baseline2", "dfr"), 6)
    teacher = plan.protocol.teacher(teachers_of(plan.study)[0], 0).config
    assert teacher is not None
    assert teacher.training.steps == 12  # the largest
    table = gather(plan).table
    trials = (
        table[(table["set"] == "test-unseen") & (table["source"] == "")]
        .set_index("key")[["steps", "trials"]]
        .astype(float)
    )
    assert trials.loc["baseline2"].tolist() == [6, 2]
    assert trials.loc["student"].tolist() == [12, 2]
