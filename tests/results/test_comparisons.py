"""Which arms are compared, over which seeds, and which of the p-values Holm's correction is of.

The scores are written down, not computed: what stands in a line is known from them.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from preceptor.metrics.bootstrap import Side, bootstrap_difference
from preceptor.report.tables import set_table
from preceptor.results.comparisons import shown
from preceptor.results.domain import Results
from preceptor.results.record import OVERALL, select_arm
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm, Member
from preceptor.utils.results import read_scores
from preceptor.utils.text import DASH
from tests.documents import docs_module
from tests.results.conftest import results_after, scores_of
from tests.studies import gather, scored_study

BACKBONES = ("test_byobnet", "test_resnet")
SEEDS = [0, 1, 2]
SHOWN = ("shuffled", "masked", "dfr")  # of the controls
PRIMARY = "test-unseen"
EFFECTS = {
    "baseline1": 0.2,
    "teacher": 0.2,
    "baseline2": 0.6,
    "student": 1.0,
    "ceiling": 1.6,
    "shuffled": 0.6,
    "masked": 0.45,
    "dfr": 0.62,
    "student_dfr": 1.02,
    "mapper": 0.9,
    "mapper_all": 1.1,
}


def effect(arm: Arm, seed: int) -> float:
    """By role, better with the second backbone, and a little different in every seed and arm."""
    text = f"{arm.label} {arm.backbone} {arm.alpha:g} {arm.teacher}"
    own = np.random.default_rng([seed, *text.encode()]).normal(0, 0.1)
    better = 0.3 if arm.backbone == BACKBONES[1] else 0.0
    return EFFECTS[arm.label] + better + float(own)


def scored(folder: Path, **values: Any) -> Plan:
    """A study whose test scores are there."""
    given = {
        "seeds": SEEDS,
        "students": BACKBONES,
        "controls": SHOWN,
        "dfr_set": "val",
        "alphas": (0.5,),
        "teacher_alphas": (0.5,),
        "data_driven": True,
        "backbone_args": {name: {"output_stride": 8} for name in BACKBONES},
        "saliency": ("cam", "rise"),
    }
    splits = {"train": 12, "val": 8, PRIMARY: 40}
    return scored_study(folder, effect, splits, sources=False, **given | values)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return scored(tmp_path_factory.mktemp("comparisons"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Without controls, and with one Teacher by CAM."""
    return scored(
        tmp_path_factory.mktemp("small"),
        controls=(),
        dfr_set=None,
        data_driven=False,
        saliency=("cam",),
    )


@pytest.fixture(scope="module")
def small_whole(small: Plan) -> Results:
    return gather(small)


@pytest.fixture
def parted(small: Plan, tmp_path: Path) -> Callable[..., Results]:
    """Results of the small study without the test scores of the members that a test takes away."""

    def without(gone: Callable[[Member], bool]) -> Results:
        def remove(folder: Path, member: Member) -> None:
            if gone(member):
                shutil.rmtree(folder, ignore_errors=True)

        return results_after(small, tmp_path / "store", remove)

    return without


def test_the_questions_and_their_pairs(whole: Results) -> None:
    found = whole.comparisons
    pairs = list(
        zip(found["question"], found["backbone"], found["key_a"], found["key_b"], strict=True)
    )
    against = {
        "baseline1": "RQ2",
        "baseline2": "RQ2",
        "baseline1_paper": "RQ3",
        "ceiling": "ceiling",
    } | dict.fromkeys(SHOWN, "control")
    expected = [
        (question, backbone, "student", key)
        for key, question in against.items()
        for backbone in BACKBONES
    ]
    expected += [("RQ1", BACKBONES[0], "", "")] * 2  # by CAM, and by RISE
    expected += [("saliency", BACKBONES[0], "", "")] * 2  # of each Teacher
    expected += [
        ("overall", OVERALL, "student", key)
        for key in ("baseline1", "baseline1_paper", "baseline2", "ceiling")
    ]
    assert sorted(pairs) == sorted(expected)
    titles = {row.key: row.title for row in whole.setup.rows} | {"student": "Student"}
    shown = found[found["key_b"] != ""]
    assert list(shown["a"]) == [titles[key] for key in shown["key_a"]]
    assert list(shown["b"]) == [titles[key] for key in shown["key_b"]]


def test_teachers_are_compared_with_their_own_kind(whole: Results) -> None:
    """Human-guided against data-driven within a way of making maps, RISE against CAM within a
    Teacher: never both at once."""
    human, data = "test_byobnet human-guided α 0.5", "test_byobnet data-driven"
    found = whole.comparisons.set_index("question")
    rq1 = found.loc["RQ1", ["teacher_a", "teacher_b"]].to_numpy().tolist()
    assert sorted(rq1) == [[f"{human}, {how}", f"{data}, {how}"] for how in ("CAM", "RISE")]
    saliency = found.loc["saliency", ["teacher_a", "teacher_b"]].to_numpy().tolist()
    assert sorted(saliency) == [[f"{who}, RISE", f"{who}, CAM"] for who in (data, human)]


def aucs(plan: Plan, role: str, backbone: str, alpha: float, teacher: str) -> dict[int, float]:
    """AUC on the primary set by seed: scikit-learn on the score files."""
    found = {}
    for member in plan.members_of(role, backbone):
        folder = scores_of(plan, member)
        if (member.arm.alpha, member.arm.teacher) == (alpha, teacher) and folder.exists():
            part = read_scores(folder).query(f"split == '{PRIMARY}'")
            found[member.seed] = float(
                roc_auc_score(part["label"] == "marked", part["score_marked"])
            )
    return found


def role_of(key: str) -> str:
    return {"baseline1_paper": "baseline1", "": "student"}.get(key, key)


def test_every_line_is_of_the_score_files(plan: Plan, whole: Results) -> None:
    lines = whole.comparisons[whole.comparisons["question"] != "overall"].to_dict("records")
    for line in lines:
        sides = [
            aucs(
                plan,
                role_of(line[f"key_{s}"]),
                line["backbone"],
                line[f"alpha_{s}"],
                line[f"teacher_{s}"],
            )
            for s in "ab"
        ]
        differences = np.array([sides[0][seed] - sides[1][seed] for seed in SEEDS])
        what = (line["question"], line["key_a"], line["key_b"])
        assert line["n"] == len(SEEDS), what
        np.testing.assert_allclose(line["difference_by_seed"], differences, atol=1e-6)
        assert line["mean"] == pytest.approx(differences.mean()), what
        low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
        assert (line["low"], line["high"]) == pytest.approx((low, high)), what
        flips = np.array(list(itertools.product((-1, 1), repeat=len(SEEDS))))
        as_far = np.abs(flips @ differences) >= abs(differences.sum()) - 1e-12
        assert line["p"] == pytest.approx(as_far.mean()), what
        assert line["p_floor"] == 2 / 2**3
        assert line["image_low"] <= line["mean"] <= line["image_high"]
        assert line["image_low"] != line["low"]  # it sees other images as well


def test_the_interval_over_images_is_of_the_same_images(plan: Plan, whole: Results) -> None:
    (line,) = (
        one
        for one in whole.comparisons.to_dict("records")
        if (one["key_b"], one["backbone"]) == ("baseline2", BACKBONES[1])
    )
    sides = []
    for role, alpha, teacher in (
        ("student", line["alpha_a"], line["teacher_a"]),
        ("baseline2", 1.0, ""),
    ):
        members = {
            member.seed: member
            for member in plan.members_of(role, BACKBONES[1])
            if (member.arm.alpha, member.arm.teacher) == (alpha, teacher)
        }
        frames = [
            read_scores(scores_of(plan, members[seed])).query(f"split == '{PRIMARY}'")
            for seed in SEEDS
        ]
        sides.append(np.stack([frame["score_marked"] for frame in frames]))
    truth = (frames[0]["label"] == "marked").to_numpy()
    groups = frames[0]["group"].to_numpy(object)
    expected = bootstrap_difference(*(Side(truth, [one], groups) for one in sides))
    assert (line["image_low"], line["image_high"]) == (expected.low, expected.high)


def slow_holm(p_values: list[float]) -> list[float]:
    """Each p times how many are at least as large, and at least any smaller one's."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, before = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        before = max(before, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = before
    return found


def test_the_family_is_of_the_second_question_alone(whole: Results) -> None:
    found = whole.comparisons
    family = found["question"] == "RQ2"
    assert family.sum() == 4  # two baselines, two backbones
    assert found.loc[~family, "p_holm"].isna().all()
    assert not found.loc[~family, "p"].isna().any()
    np.testing.assert_allclose(found.loc[family, "p_holm"], slow_holm(list(found[family]["p"])))
    assert (found.loc[family, "p_holm"] > found.loc[family, "p"]).any()
    assert len(whole.family) == 4


@pytest.mark.parametrize(
    ("low", "high", "p", "sign"),
    [
        (0.01, 0.05, 0.05, 1),
        (-0.05, -0.01, 0.03, -1),
        (-0.01, 0.05, 0.03, 0),
        (0.01, 0.05, 0.0625, 0),  # the smallest p of five seeds
        (float("nan"), float("nan"), float("nan"), 0),  # one seed
    ],
)
def test_an_effect_is_shown_by_its_interval_and_its_p(
    low: float, high: float, p: float, sign: int
) -> None:
    """The report and the tables of the evidence have the same rule."""
    assert shown(low, high, p) == sign
    assert docs_module("evidence_tables").Difference(0.03, low, high, p).shown == (sign > 0)


def lines_of(results: Results) -> dict[tuple[str, str, str, str, str], dict[str, Any]]:
    names = ["question", "backbone", "key_b", "teacher_a", "teacher_b"]
    return {
        tuple(line[name] for name in names): line  # type: ignore[misc]
        for line in results.comparisons.to_dict("records")
    }


def test_a_seed_that_one_side_lacks_is_left_out_of_its_pairs_alone(
    small_whole: Results, parted: Callable[..., Results]
) -> None:
    def gone(member: Member) -> bool:
        return (member.arm.role, member.arm.backbone, member.seed) == ("baseline2", BACKBONES[0], 1)

    before, after = lines_of(small_whole), lines_of(parted(gone))
    assert before.keys() == after.keys()
    for key, line in after.items():
        _, backbone, key_b, *_ = key
        touched = key_b == "baseline2" and backbone in (BACKBONES[0], OVERALL)
        assert line["n"] == (2 if touched else 3), key
        by_seed = before[key]["difference_by_seed"]
        if touched:
            assert line["difference_by_seed"] == [by_seed[place] for place in (0, 2)]
            assert line["p_floor"] == 2 / 2**2
        else:
            assert line["difference_by_seed"] == by_seed


def test_the_family_is_corrected_for_a_line_that_is_missing(
    small_whole: Results, parted: Callable[..., Results]
) -> None:
    def gone(member: Member) -> bool:
        return (member.arm.role, member.arm.backbone) == ("baseline2", BACKBONES[1])

    found = parted(gone)
    before, after = lines_of(small_whole), lines_of(found)
    lost = {key[:3] for key in before.keys() - after.keys()}
    assert lost == {("RQ2", BACKBONES[1], "baseline2"), ("overall", OVERALL, "baseline2")}
    family = found.comparisons[found.comparisons["question"] == "RQ2"]
    assert len(family) == 3
    np.testing.assert_allclose(family["p_holm"], slow_holm([*family["p"], 1.0])[:3])


def test_without_students_there_are_no_comparisons(parted: Callable[..., Results]) -> None:
    found = parted(lambda member: member.arm.role == "student")
    assert found.comparisons.empty
    assert found.family.empty
    assert found.shares.empty


def test_overall_is_the_mean_over_backbones_seed_by_seed(whole: Results) -> None:
    found = lines_of(whole)
    for key, line in found.items():
        if key[0] != "overall":
            continue
        parts = [
            one["difference_by_seed"]
            for other, one in found.items()
            if other[0] in ("RQ2", "RQ3", "ceiling") and other[2] == key[2]
        ]
        assert len(parts) == 2
        np.testing.assert_allclose(line["difference_by_seed"], np.mean(parts, axis=0), atol=2e-6)
        assert np.isnan([line["alpha_a"], line["alpha_b"], line["image_low"]]).all()


def test_all_metrics_of_overall_are_of_the_same_seeds(parted: Callable[..., Results]) -> None:
    """One backbone lacks the test scores of a seed, which count for none of the metrics."""
    found = parted(
        lambda one: (one.arm.role, one.arm.backbone, one.seed) == ("student", BACKBONES[1], 2)
    )
    table = found.table[(found.table["key"] == "student") & (found.table["source"] == "")]
    (line,) = table[(table["set"] == PRIMARY) & (table["backbone"] == OVERALL)].to_dict("records")
    assert line["n"] == 2
    (student,) = (row for row in found.setup.rows if row.key == "student")
    here = found.figures[(found.figures["set"] == PRIMARY) & (found.figures["source"] == "")]
    own = pd.concat([select_arm(here, arm) for arm in student.arms.values()])
    assert len(own) == 5
    own = own[own["seed"] != 2]
    for name, mean in (("auc", "mean"), ("accuracy", "accuracy"), ("brier", "brier")):
        assert line[mean] == pytest.approx(own[name].mean(), abs=1e-12)
    (before,) = table[(table["set"] == "val") & (table["backbone"] == OVERALL)].to_dict("records")
    assert before["n"] == 3


def test_the_share_of_the_way_begins_at_the_better_baseline(whole: Results) -> None:
    found = whole.shares
    keys = set(zip(found["key"], found["backbone"], strict=True))
    assert keys == {("student", name) for name in BACKBONES}
    assert set(found["baseline"]) == {"baseline2"}
    means = whole.table[(whole.table["set"] == PRIMARY) & (whole.table["source"] == "")].set_index(
        ["key", "backbone"]
    )["mean"]
    given = found[found["share"].notna()]
    assert len(given)
    for line in given.to_dict("records"):
        ours, low, high = (
            means[key, line["backbone"]] for key in (line["key"], "baseline2", "ceiling")
        )
        assert line["share"] == pytest.approx((ours - low) / (high - low))
        assert line["low"] < line["share"] < line["high"]


def test_a_mapper_of_another_backbone_is_in_a_column_of_its_own(tmp_path: Path) -> None:
    """The mean over backbones is that of the Students' alone, in each row."""
    own = scored(
        tmp_path,
        seeds=[0],
        teachers=(BACKBONES[1],),
        students=BACKBONES[:1],
        controls=(),
        dfr_set=None,
        data_driven=False,
        saliency=("cam",),
        mapper=True,
    )
    results = gather(own)
    found = results.table[results.table["set"] == PRIMARY].set_index("key")
    assert set(found.loc[["mapper", "mapper_all"], "backbone"]) == {BACKBONES[1]}
    table = set_table(own, results, PRIMARY)
    assert table is not None
    assert table.columns == list(BACKBONES)
    cells = {line.heading: [cell.text for cell in line.cells] for line in table.lines}
    student, mapper = (cells[found.loc[key, "title"]] for key in ("student", "mapper"))
    assert [bool(text.strip(DASH)) for text in student] == [True, False]
    assert [bool(text.strip(DASH)) for text in mapper] == [False, True]
