"""Each question is answered as far as the numbers go, and methods name what was computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.metrics.paired_tests import EXACT_UP_TO
from preceptor.report.methods import methods
from preceptor.report.words import across_domains, answers
from preceptor.results.domain import Results
from preceptor.results.tables import COMPARISONS, FIGURES, RUNS
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.selection import Choice
from preceptor.study.steps import Selection
from preceptor.study_folder import open_study
from tests.datasets import squares
from tests.report.ladders import compared
from tests.studies import record_with


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("answers")
    values: dict[str, Any] = {
        "manifest": str(squares(folder / "data")),
        "positive": "marked",
        "primary": "test",
        "teachers": ["test_byobnet"],
        "students": ["test_byobnet"],
        "backbone_args": {"test_byobnet": {"output_stride": 8}},
        "training": {"input_size": 32},
    }
    study = parse_config(values, StudyConfig)
    found = open_study(study, folder, run=False, report_to=lambda line: None).first
    found.choices[Selection("", "teacher")] = Choice("the one", "", ())
    return found


def line(question: str, b: str, mean: float, half: float, **more: Any) -> dict[str, Any]:
    return compared(mean, half, question=question, backbone="test_byobnet", a="A", b=b, **more)


def said(plan: Plan, *lines: dict[str, Any], shares: pd.DataFrame | None = None) -> dict[str, str]:
    runs = pd.DataFrame({"run": ["one"], "finished": [True]})
    results = Results(
        record_with("test", ("marked", "plain"), "marked"),
        runs,
        FIGURES.empty(),
        comparisons=pd.DataFrame(lines) if lines else COMPARISONS.empty(),
    )
    if shares is not None:
        results.shares = shares
    return answers(plan, results)


@pytest.mark.parametrize(
    ("mean", "n", "p", "words"),
    [
        (0.05, 8, 0.01, "indicates that the human-guided Teacher is better"),
        (-0.05, 8, 0.01, "indicates that the human-guided Teacher is worse"),
        (0.005, 8, 0.01, "do not distinguish the two"),
        (0.05, 4, 0.125, "no difference can be shown, since p cannot fall below 0.125"),
        (0.005, 4, 0.125, "do not distinguish the two"),
        (0.05, 2, 1.0, "fewer than three seeds support no conclusion"),
    ],
)
def test_one_pair_of_teachers(plan: Plan, mean: float, n: int, p: float, words: str) -> None:
    found = said(plan, line("RQ1", "data-driven", mean, 0.02, n=n, p=p, p_floor=p))["RQ1"]
    assert words in found
    assert "Selected on validation: the one." in found


def test_several_pairs_are_counted(plan: Plan) -> None:
    lines = [line("RQ1", "d", mean, 0.02) for mean in (0.05, 0.01, -0.04, 0.03)]
    found = said(plan, *lines)["RQ1"]
    assert "In 4 comparisons" in found
    assert "better in 2, worse in 1, and not distinguishable in 1" in found
    assert "−0.040 to +0.050" in found


@pytest.mark.parametrize("left_out", [{"data_driven": False}, {"teacher_alphas": ()}])
def test_without_both_kinds_of_teachers_they_are_not_compared(plan: Plan, left_out: Any) -> None:
    study = plan.protocol.study.model_copy(update=left_out)
    alone = Plan(replace(plan.protocol, study=study), choices=plan.choices)
    assert "cannot be compared" in said(alone)["RQ1"]


@pytest.mark.parametrize(
    ("pair", "p", "words"),
    [
        ((0.05, 0.04), 0.01, "for the backbone; after Holm's correction it is significant for the"),
        ((0.05, 0.04), 0.2, "for the backbone; after Holm's correction it is significant for no"),
        ((0.05, -0.04), 0.01, "above both baselines for no backbone"),
        (
            (0.05, -0.04),
            0.01,
            "significant for no backbone, and significantly below a baseline for",
        ),
    ],
)
def test_every_backbone(plan: Plan, pair: tuple[float, float], p: float, words: str) -> None:
    lines = [line("RQ2", f"B{place}", mean, 0.01, p_holm=p) for place, mean in enumerate(pair)]
    found = said(plan, *lines)["RQ2"]
    assert words in found
    assert "8 seeds: p cannot fall below" in found
    assert "does not extend to other backbones." in found


def test_one_baseline_is_not_both(plan: Plan) -> None:
    """While a study runs, the other may not have been tested."""
    found = said(plan, line("RQ2", "Baseline 2", 0.05, 0.01, p_holm=0.01))["RQ2"]
    assert found == "No Student has been compared with both baselines yet."


def test_how_much_is_against_the_stronger_baseline(plan: Plan) -> None:
    lines = [line("RQ2", "Baseline 1", 0.09, 0.02), line("RQ2", "Baseline 2", 0.04, 0.02)]
    shares = pd.DataFrame(
        [{"key": "student", "backbone": "test_byobnet", "share": 0.6, "low": 0.2, "high": 1.1}]
    )
    found = said(plan, *lines, shares=shares)["RQ3"]
    assert "the AUC of the stronger baseline (Baseline 2) is +0.040" in found
    assert "60% of the way to the ceiling (20% to 110%)" in found
    several = plan.protocol.study.model_copy(update={"students": ("test_byobnet", "test_resnet")})
    of_two = Plan(replace(plan.protocol, study=several), plan.choices)
    assert "(Baseline 2) is +0.040 for test_byobnet (" in said(of_two, *lines)["RQ3"]


def test_the_ceiling_is_no_baseline_of_the_mean_over_backbones(plan: Plan) -> None:
    lines = [line("RQ2", f"Baseline {k}", 0.09, 0.02) for k in (1, 2)]
    means = {"Baseline 1": 0.09, "Baseline 2": 0.04, "Ceiling": -0.08}
    over = [line("overall", b, mean, 0.02) for b, mean in means.items()]
    found = said(plan, *lines, *over)["RQ3"]
    assert "the stronger baseline (Baseline 2) is +0.040 (the mean over backbones" in found


def test_two_seeds_exclude_nothing_and_cover_no_share(plan: Plan) -> None:
    lines = [line("RQ2", f"Baseline {k}", 0.09, 0.001, n=2) for k in (1, 2)]
    share = {"key": "student", "backbone": "test_byobnet", "share": 0.6, "low": 0.2, "high": 1.1}
    found = said(plan, *lines, shares=pd.DataFrame([share]))["RQ3"]
    assert "over 2 seeds)" in found
    assert "excluded" not in found
    assert "of the way" not in found


def test_nothing_compared_is_said(plan: Plan) -> None:
    found = said(plan)
    assert set(found) == {"RQ1", "RQ2", "RQ3"}  # no budget was asked for
    assert all("yet" in text for text in found.values())


def test_given_maps_do_not_depend_on_annotations(plan: Plan) -> None:
    study = plan.protocol.study
    given = study.model_copy(update={"maps": {"masks": study.manifest}, "budget": (4, 8)})
    found = Plan(
        replace(plan.protocol, study=given),
        {Selection("", "teacher"): Choice("masks (given maps)", "", ())},
    )
    assert "Students do not depend on the number of annotated images" in said(found)["budget"]


def domain(name: str, pair: tuple[float, float], p: float) -> list[dict[str, Any]]:
    return [
        compared(mean, domain=name, backbone="b", b=f"Baseline {place}", p_holm=p)
        for place, mean in enumerate(pair)
    ]


def test_domains() -> None:
    won, ahead, lost = (
        domain("tiles", (0.1, 0.2), 0.01),
        domain("boards", (0.1, 0.2), 0.4),
        domain("eyes", (-0.1, 0.2), 0.01),
    )
    names = ["tiles", "boards", "eyes"]
    text = across_domains(pd.DataFrame([*won, *ahead, *lost]), names, 8)
    assert "above both baselines in 2 of 3 domains (tiles, boards)" in text
    assert "in 1 (tiles)" in text
    assert "does not extend to other domains" in text
    text = across_domains(pd.DataFrame([*lost, *lost]), ["eyes"], 8)
    assert "in 0 of 1 domains; significantly, after correction over all domains, in none" in text
    assert "yet" in across_domains(pd.DataFrame(), names, 8)
    untested = [one | {"backbone": "c"} for one in won[:1]]
    text = across_domains(pd.DataFrame([*won, *ahead, *untested]), names, 8, 2)
    assert text.startswith("The Students of no domain")
    # A domain without results is one that the Student has not won.
    text = across_domains(pd.DataFrame(won), names, 10)
    assert "; only 8 of 10 seeds, and the tests need all)" in text
    assert "above both baselines in 1 of 3 domains (tiles)" in text
    assert "in 1 (tiles)" in text


@pytest.mark.parametrize("seeds", [2, EXACT_UP_TO + 1])
def test_methods_name_how_settings_were_selected_and_tested(plan: Plan, seeds: int) -> None:
    study = plan.protocol.study.model_copy(update={"seeds": seeds, "generations": seeds})
    changed = Plan(replace(plan.protocol, study=study), choices=plan.choices)
    empty = Results(
        record_with("test", ("marked", "plain"), "marked"), RUNS.empty(), FIGURES.empty()
    )
    _, trained, selected, tested, *_ = methods(changed, empty)
    assert f"with {seeds} seeds each" in trained
    assert ("exact sign-flip tests" in tested) == (seeds <= EXACT_UP_TO)
    assert "highest mean AUC over seeds" in selected
    assert "Teachers' maps: the guided map;" in trained
    assert f"(generation {seeds}) guided the Students; controls: " in trained
    assert "random initial weights, " in trained
    assert "no augmentation)" in trained


@pytest.mark.parametrize(
    ("teachers", "words"),
    [
        (
            {"mapper": True},
            "probabilities of a mark in each cell, of mappers trained on human maps alone",
        ),
        ({"maps": {"sam": "sam.csv"}}, "the given maps sam"),
    ],
)
def test_methods_name_the_maps_of_the_teachers_that_exist(
    plan: Plan, teachers: dict[str, Any], words: str
) -> None:
    none = {"teacher_alphas": (), "data_driven": False}
    study = plan.protocol.study.model_copy(update=none | teachers)
    empty = Results(
        record_with("test", ("marked", "plain"), "marked"), RUNS.empty(), FIGURES.empty()
    )
    trained = methods(Plan(replace(plan.protocol, study=study), plan.choices), empty)[1]
    assert f"Teachers' maps: {words};" in trained
    assert "and Teachers of" not in trained
    assert ("Mappers of test_byobnet had the same settings, but" in trained) == (
        "mapper" in teachers
    )
