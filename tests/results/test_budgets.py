"""What annotations buy: which runs are made, how the curve is drawn, and where it is enough."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from preceptor.config.files import parse_config
from preceptor.errors import InputError
from preceptor.report.page import budget_plot
from preceptor.report.words import answers
from preceptor.results.domain import Results, gather_study
from preceptor.results.ladder import Enough, enough, more_marks
from preceptor.results.record import setup_of
from preceptor.study.config import Setting, StudyConfig
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study_folder import open_study
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import walk, write_down

SETTINGS: dict[str, Any] = SQUARES_STUDY | {
    "seeds": 2,
    "controls": [],
    "budget": [12, 4],
    "training": {"input_size": 32, "epochs": 1, "batch_size": 8, "schedule": "constant"},
}


def timed(folder: Path, seconds: dict[int, str]) -> Path:
    """A manifest that says what the annotation of some training images took."""
    manifest = squares(folder)
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    table["annotation_seconds"] = [
        seconds.get(place, "6") if split == "train" else ""
        for place, split in enumerate(table["split"])
    ]
    table.to_csv(manifest, index=False)
    return manifest


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("budget")
    study = parse_config(SETTINGS | {"manifest": str(timed(folder / "data", {}))}, StudyConfig)
    plan = walk(study, folder / "store", compute=False)
    write_down(StudyPlan.of(plan), lambda arm, seed: 0.5 + seed)
    return plan


@pytest.fixture(scope="module")
def results(finished: Plan) -> Results:
    return gather_study(StudyPlan.of(finished)).first


def test_each_size_is_drawn_anew_for_every_seed_and_within_the_larger(finished: Plan) -> None:
    protocol = finished.protocol
    drawn = {
        (size, seed): set(
            np.flatnonzero(
                protocol.workspace.annotated(
                    protocol.of_budget(size).baseline1("test_byobnet", Setting(0.5), seed).config
                )
            )
        )
        for size in (4, 12)
        for seed in (0, 1)
    }
    for size in (4, 12):
        assert len(drawn[size, 0]) == len(drawn[size, 1]) == size
    assert drawn[12, 0] != drawn[12, 1]
    assert drawn[4, 0] < drawn[12, 0]
    assert drawn[4, 1] < drawn[12, 1]


def test_the_students_of_a_size_learn_from_its_teacher(finished: Plan) -> None:
    protocol = finished.protocol
    teachers = {(one.arm.label, one.seed): one.run for one in finished.members}
    for size in (4, 12):
        for seed in (0, 1):
            winner = finished.winner()
            assert winner is not None
            budget = protocol.of_budget(size)
            chain = budget.student(winner, "test_byobnet", Setting(0.5), seed)
            assert [step.kind for step in chain] == ["train", "maps", "train"]
            assert chain[0].id == teachers[f"teacher @ {size}", seed]
            assert chain[2].id == teachers[f"student @ {size}", seed]
    students = {run for (role, _), run in teachers.items() if role.startswith("student")}
    assert len(students) == 5  # 12 are all annotations of the study: seed 0 draws the same


def test_the_curve_is_the_figures_of_its_runs(results: Results) -> None:
    curve = results.budget
    assert sorted(set(curve["size"])) == [4, 12]
    assert set(curve["line"]) == {"baseline1", "student", "teacher_maps"}
    for row in curve[curve["line"] != "teacher_maps"].to_dict("records"):
        mine = results.figures[
            (results.figures["role"] == f"{row['line']} @ {row['size']}")
            & (results.figures["set"] == "test-unseen")
            & (results.figures["source"] == "")
        ]
        values = mine.drop_duplicates("seed").sort_values("seed")["auc"].to_numpy()
        assert len(values) == row["n"] == 2
        assert row["mean"] == pytest.approx(values.mean())
        low, high = stats.t.interval(0.95, 1, values.mean(), stats.sem(values))
        assert (row["low"], row["high"]) == pytest.approx((low, high))
    maps = curve[curve["line"] == "teacher_maps"]
    runs = results.runs[results.runs["role"] == "teacher @ 4"]
    small = maps[maps["size"] == 4]["mean"].item()
    assert small == pytest.approx(runs["val_map_correlation"].astype(float).mean())


def test_the_curve_has_the_mapper_of_each_size(tmp_path: Path) -> None:
    values = {"mapper": True, "manifest": squares(tmp_path / "data"), "students": ["test_resnet"]}
    study = parse_config(SETTINGS | values, StudyConfig)
    plan = walk(study, tmp_path / "store", compute=False)
    # The mapper and the Students that are trained on its maps are better than the others.
    teacher = "test_byobnet mapper"
    write_down(StudyPlan.of(plan), lambda arm, seed: 0.5 + seed + (arm.teacher == teacher))
    found = gather_study(StudyPlan.of(plan)).first
    winner = plan.winner()
    assert winner is not None
    assert winner.kind == "mapper"
    assert set(found.runs[found.runs["role"] == "mapper @ 4"]["backbone"]) == {"test_byobnet"}
    for line in ("mapper", "teacher_maps"):
        rows = found.budget[found.budget["line"] == line]
        assert list(rows["backbone"].unique()) == ["test_resnet"]  # that of the Student
        assert list(rows["size"]) == [4, 12]
    tested = found.figures[
        (found.figures["role"] == "mapper @ 4")
        & (found.figures["set"] == "test-unseen")
        & (found.figures["source"] == "")
    ]
    small = found.budget[(found.budget["line"] == "mapper") & (found.budget["size"] == 4)]
    assert small["mean"].item() == pytest.approx(tested["auc"].mean())
    drawn = budget_plot(plan.protocol.study, found, "test_resnet")
    assert drawn is not None
    assert "Mapper, annotated" in drawn.title
    assert answers(plan, found)["budget"]


def test_minutes_are_known_where_every_drawn_image_has_a_time(
    results: Results, tmp_path: Path
) -> None:
    assert set(results.budget["minutes"]) == {0.4, 1.2}
    for wrong, known in (({3: "30"}, True), ({3: ""}, False)):
        manifest = timed(tmp_path / str(known), wrong)
        study = parse_config(SETTINGS | {"manifest": str(manifest), "budget": [24]}, StudyConfig)
        plan = open_study(study, tmp_path, run=False, report_to=lambda line: None).first
        (budget,) = setup_of(plan).budgets
        minutes = budget.minutes
        assert (minutes == pytest.approx((23 * 6 + 30) / 60)) if known else math.isnan(minutes)


def test_a_time_that_is_none_is_told(tmp_path: Path) -> None:
    manifest = timed(tmp_path / "data", {3: "-2", 5: "soon"})
    study = parse_config(SETTINGS | {"manifest": str(manifest)}, StudyConfig)
    with pytest.raises(InputError, match="annotation_seconds is '-2'"):
        open_study(study, tmp_path, run=False, report_to=lambda line: None)


def test_more_than_there_are_is_told(finished: Plan, tmp_path: Path) -> None:
    study = finished.protocol.study.model_copy(update={"budget": (25,)})
    with pytest.raises(InputError, match="budget: "):
        open_study(study, tmp_path, run=False, report_to=lambda line: None)


def curve_of(values: dict[int, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "backbone": "b",
                "line": "student",
                "size": size,
                "mean": np.mean(each),
                "by_seed": each,
                "seeds": list(range(len(each))),
            }
            for size, each in values.items()
        ]
    )


@pytest.mark.parametrize(
    ("values", "size", "start", "then"),
    [
        ({25: [0.6, 0.62, 0.6], 50: [0.7, 0.72, 0.7], 100: [0.7, 0.7201, 0.7]}, 50, 50, 100),
        ({25: [0.6, 0.62, 0.6], 50: [0.6, 0.6201, 0.6], 100: [0.6, 0.6202, 0.6]}, 25, 25, 100),
        ({25: [0.7, 0.7, 0.7], 50: [0.7, 0.7, 0.7], 100: [0.8, 0.82, 0.8]}, None, 50, 100),
        ({25: [0.7] * 3, 50: [0.6] * 3, 90: [0.8, 0.82, 0.8], 99: [0.8, 0.8201, 0.8]}, 90, 90, 99),
        ({25: [0.7, 0.7, 0.7], 50: [0.9, 0.9, 0.9], 100: [0.8, 0.8001, 0.8]}, 50, 50, 100),
        ({25: [0.6, 0.62, 0.6], 50: [0.6, 0.63, 0.6]}, None, 25, 50),  # the interval is too wide
        ({25: [1.0] * 3, 50: [1.0] * 3}, None, 25, 50),  # one without width excludes nothing
        ({25: [0.7, 0.7], 50: [0.7, 0.7001]}, None, 25, 50),  # two seeds conclude nothing
        ({25: [0.6], 50: [0.6]}, None, 25, 50),
    ],
)
def test_enough_is_where_a_gain_of_every_larger_number_is_excluded(
    values: dict[int, list[float]], size: int | None, start: int, then: int
) -> None:
    found = enough(curve_of(values), "b", [*values])
    assert found is not None
    assert (found.size, found.start, found.then) == (size, start, then)


def test_more_marks_are_no_hint_where_fewer_are_enough() -> None:
    small = {
        50: [0.7, 0.71, 0.72, 0.7, 0.71, 0.72],
        200: [0.702, 0.713, 0.722, 0.703, 0.712, 0.722],
    }
    step = enough(curve_of(small), "b", [50, 200])
    assert step is not None
    assert (step.size, step.shown) == (50, True)
    assert more_marks([], curve_of(small), ["b"], [50, 200], (50, 200)) is None
    large = {50: small[50], 200: [one + 0.05 for one in small[200]]}
    assert more_marks([], curve_of(large), ["b"], [50, 200], (50, 200)) is not None
    few = {size: values[:5] for size, values in large.items()}  # p cannot fall below 0.0625
    assert more_marks([], curve_of(few), ["b"], [50, 200], (50, 200)) is None


def test_small_steps_may_add_up_to_a_relevant_gain() -> None:
    """Each step gives 0.009, all four of them 0.036."""
    noise = np.random.default_rng(0).normal(0, 0.0003, (5, 5))
    sizes = (25, 50, 100, 200, 400)
    curve = curve_of({size: list(0.7 + 0.009 * at + noise[at]) for at, size in enumerate(sizes)})
    found = enough(curve, "b", sizes)
    assert enough(curve, "b", [*sizes, 800]) is None  # not scored yet
    assert found is not None
    assert (found.size, found.then) == (200, 400)
    flat = enough(curve.iloc[[0, 0, 0]].assign(size=[25, 50, 100]), "b", [25])
    assert flat is not None
    assert flat.size is None  # equal numbers with every seed


def test_gains_are_paired_by_seed() -> None:
    curve = curve_of({10: [0.5, 0.6, 0.7], 20: [0.6, 0.7, 0.8]})
    curve.at[1, "seeds"] = [0, 2, 3]
    found = enough(curve, "b", [10, 20])
    # Seeds 0 and 2 are in both: 0.6 − 0.5 and 0.7 − 0.7.
    assert found is not None
    assert found.gain == pytest.approx(0.05)
    assert enough(curve.iloc[:1], "b", [10]) is None


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (Enough(50, 50, 200, 0.002, -0.001, 0.005, 0.3), "50 annotated images are enough: for"),
        (
            Enough(50, 50, 200, 0.002, -0.001, 0.005, 0.3),
            "from 50 to 200: +0.002, 95 % interval −0.001",
        ),
        (Enough(None, 50, 100, 0.002, -0.03, 0.03, 0.9), "are enough is not known: for no number"),
        (Enough(None, 50, 100, 0.05, 0.03, 0.07, 0.01), "by at least 0.01 on these test images"),
        (Enough(None, 50, 100, 0.05, 0.001, 0.09, 0.03), "; less than 0.01 is not excluded"),
        (Enough(None, 50, 100, 0.05, 0.03, 0.07, 0.0625), "are enough is not known: for no number"),
    ],
)
def test_what_is_said_of_it(
    finished: Plan, results: Results, point: Enough, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.report.words.enough", lambda *given: point)
    assert words in answers(finished, results)["budget"]


def test_without_a_student_of_every_number_nothing_is_said(
    finished: Plan, results: Results
) -> None:
    lacking = (results.budget["size"] == 12) & (results.budget["line"] == "student")
    part = replace(results, budget=results.budget[~lacking])
    assert {4, 12} <= {*part.budget["size"]}  # those of other lines are there
    assert "have not been scored with all seeds yet" in answers(finished, part)["budget"]
