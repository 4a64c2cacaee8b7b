"""The ladder of a study: its rungs, the choice of any map, and the gain of each step."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from preceptor.metrics.paired_tests import PairedResult
from preceptor.results.domain import Results, results_of
from preceptor.results.ladder import ANY_MAP, ControlGain, Ladder, ladder_table, ladders
from preceptor.results.record import Scores, record_of
from preceptor.results.tables import LADDER
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm, Member
from preceptor.utils.results import finish, read_scores
from tests.results.conftest import Changed, scores_of
from tests.studies import gather, scored_study

BACKBONE = "test_byobnet"
SEEDS = [0, 1, 2]
PRIMARY = "test-unseen"
EFFECTS = {
    "baseline1": 0.2,
    "teacher": 0.2,
    "baseline2": 0.4,
    "student": 1.2,
    "ceiling": 1.6,
    "shuffled": 0.6,
    "centre": 0.8,
    "pca": 0.7,
    "shuffled_human": 0.5,
    "mixed": 1.1,
}


def effect(arm: Arm, seed: int) -> float:
    own = np.random.default_rng([seed, *arm.role.encode()]).normal(0, 0.05)
    return EFFECTS[arm.role] + float(own)


def scored(folder: Path, **values: Any) -> Plan:
    """A study whose scores are written down."""
    splits = {"train": 12, "val": 40, "val-other": 40, PRIMARY: 40}
    given = {"seeds": SEEDS, "controls": [*ANY_MAP, "mixed"]}
    return scored_study(folder, effect, splits, **given | values)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return scored(tmp_path_factory.mktemp("ladder"))


def aucs(plan: Plan, role: str, name: str, alpha: float) -> dict[int, float]:
    """AUC of a role on a set by seed: scikit-learn on the score files."""
    protocol, found = plan.protocol, {}
    for member in plan.members_of(role):
        if member.arm.alpha != alpha:
            continue
        validated = name.startswith("val")
        folder = protocol.run_folder(member.run) if validated else scores_of(plan, member)
        part = read_scores(folder).query(f"split == '{name}'")
        found[member.seed] = float(roc_auc_score(part["label"] == "marked", part["score_marked"]))
    return found


def test_a_ladder_for_every_set_the_primary_first(whole: Results) -> None:
    assert [ladder.set for ladder in whole.ladders] == [PRIMARY, "val", "val-other"]
    assert whole.primary_ladders == whole.ladders[:1]
    for ladder in whole.ladders:
        assert ladder.backbone == BACKBONE
        assert [rung.name for rung in ladder.rungs] == ["none", "any", "teacher", "human"]
        assert [rung.key for rung in ladder.rungs] == ["baseline2", "centre", "student", "ceiling"]
        assert [rung.setting.alpha for rung in ladder.rungs] == [1, 0.5, 0.5, 0.5]


def test_rungs_and_gains_are_of_the_score_files(plan: Plan, whole: Results) -> None:
    for ladder in whole.ladders:
        before = None
        for rung in ladder.rungs:
            by_seed = aucs(plan, rung.key, ladder.set, rung.setting.alpha)
            values = np.array([by_seed[seed] for seed in SEEDS])
            assert (rung.n, rung.mean) == (len(SEEDS), pytest.approx(values.mean()))
            assert rung.std == pytest.approx(values.std(ddof=1))
            low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
            assert (rung.low, rung.high) == pytest.approx((low, high))
            if before is None:
                assert rung.gain is None
            else:
                assert rung.gain is not None
                difference = values - before
                np.testing.assert_allclose(rung.gain.by_seed, difference, atol=1e-6)
                paired = rung.gain.paired
                assert (paired.n, paired.mean) == (len(SEEDS), pytest.approx(difference.mean()))
                low, high = stats.t.interval(0.95, 2, difference.mean(), stats.sem(difference))
                assert (paired.low, paired.high) == pytest.approx((low, high))
                flips = np.array(list(itertools.product((-1, 1), repeat=len(SEEDS))))
                as_far = np.abs(flips @ difference) >= abs(difference.sum()) - 1e-12
                assert paired.p == pytest.approx(as_far.mean())
            before = values
        assert ladder.place == ladder.rungs[2].gain.paired  # type: ignore[union-attr]


def test_any_map_is_the_control_that_is_best_on_its_worst_validation_set(
    plan: Plan, whole: Results
) -> None:
    worst = {
        key: min(
            np.mean(list(aucs(plan, key, name, 0.5).values())) for name in ("val", "val-other")
        )
        for key in ANY_MAP
    }
    chosen = whole.ladders[0].any_map
    assert chosen is not None
    assert chosen.control == max(worst, key=lambda key: worst[key])
    assert chosen.among == ANY_MAP
    assert chosen.reason.startswith("centre: it has the highest AUC on the worst validation set (")


def test_gains_over_the_controls_are_of_the_score_files(plan: Plan, whole: Results) -> None:
    for ladder in whole.ladders:
        ours = np.array(list(aucs(plan, "student", ladder.set, 0.5).values()))
        assert [one.control for one in ladder.over_controls] == list(ANY_MAP)
        for one in ladder.over_controls:
            theirs = np.array(list(aucs(plan, one.control, ladder.set, 0.5).values()))
            assert one.paired.mean == pytest.approx((ours - theirs).mean())
            low, high = stats.t.interval(0.95, 2, (ours - theirs).mean(), stats.sem(ours - theirs))
            assert (one.paired.low, one.paired.high) == pytest.approx((low, high))
            if ladder.any_map is not None and one.control == ladder.any_map.control:
                assert one.paired == ladder.place
        means = {one.control: one.paired.mean for one in ladder.over_controls}
        assert ladder.smallest is not None
        assert ladder.smallest.control == min(means, key=lambda key: means[key])


def test_a_control_without_scores_is_missing(tmp_path: Path) -> None:
    plan = scored(tmp_path)
    assert not any(one.missing for one in gather(plan).ladders)
    for member in plan.members_of("shuffled"):
        (scores_of(plan, member) / "run.json").unlink(missing_ok=True)
    ladder = gather(plan).primary_ladders[0]
    assert ladder.missing
    assert "shuffled" not in [one.control for one in ladder.over_controls]


def test_the_student_is_above_all_controls_if_every_interval_is() -> None:
    def over(control: Any, low: float) -> ControlGain:
        return ControlGain(control, PairedResult(0.1, 0.1, low, 0.2, 0.01, 0.01, 8))

    first, second = over("shuffled", 0.01), over("centre", 0.02)
    assert Ladder("b", "test", (), None, (first, second)).above_all_controls
    assert not Ladder("b", "test", (), None, (first, over("centre", -0.01))).above_all_controls
    assert not Ladder("b", "test", (), None, (first, over("centre", math.nan))).above_all_controls
    assert not Ladder("b", "test", (), None).above_all_controls
    assert not Ladder("b", "test", (), None, (first, second), missing=True).above_all_controls
    assert Ladder("b", "test", (), None).smallest is None


def test_test_scores_do_not_choose_any_map(changed: Changed) -> None:
    def perfect(folder: Path, member: Member) -> None:
        if member.arm.role != "pca":
            return
        scores = read_scores(folder)
        truth = (scores["label"] == "marked").to_numpy(float)
        scores.assign(score_marked=truth, score_plain=1 - truth).to_parquet(
            folder / "scores.parquet", index=False
        )
        finish(folder, {"id": folder.name, "kind": "evaluation", "run": member.run, "seconds": 1.0})

    found = changed(perfect)
    pca = found.table[(found.table["key"] == "pca") & (found.table["set"] == PRIMARY)]
    assert pca["mean"].iloc[0] == 1
    assert {ladder.rungs[1].key for ladder in found.ladders} == {"centre"}


def test_a_draw_that_lacks_a_class_of_a_source_is_left_out_of_its_mean(plan: Plan) -> None:
    record = record_of(plan)

    def scores(member: Member) -> Scores:
        val, test = record.scores(member)
        if test is not None:
            test = test.assign(source=np.where(np.arange(len(test)) % 4 < 2, "a", "b"))
            gone = (test["source"] == "b") & (test["label"] == "marked") & (member.seed == 1)
            test = test[~gone]
        return val, test

    setup = replace(record.setup, draws=True)
    table = results_of(replace(record, scores=scores, setup=setup)).table
    source = table[(table["set"] == PRIMARY) & (table["source"] == "b")]
    assert len(source)
    assert source["mean"].notna().all()
    assert {*source["n"]} == {len(SEEDS) - 1}


def test_a_control_with_a_seed_that_has_not_finished_is_no_candidate(changed: Changed) -> None:
    def unfinished(folder: Path, member: Member) -> None:
        if (member.arm.role, member.seed) == ("centre", 2):
            (folder.parents[1] / "runs" / member.run / "run.json").unlink()

    chosen = changed(unfinished).ladders[0].any_map
    assert chosen is not None
    assert (chosen.control, chosen.among) == ("pca", ("shuffled", "pca", "shuffled_human"))


def test_a_seed_that_a_rung_lacks_is_left_out_of_its_gains_alone(
    whole: Results, changed: Changed
) -> None:
    def unscored(folder: Path, member: Member) -> None:
        if (member.arm.role, member.seed) == ("student", 1):
            (folder / "run.json").unlink(missing_ok=True)

    ladder, before = changed(unscored).ladders[0], whole.ladders[0]
    assert [rung.n for rung in ladder.rungs] == [3, 3, 2, 3]
    gains = [(rung.gain, old.gain) for rung, old in zip(ladder.rungs, before.rungs, strict=True)]
    assert gains[1][0] == gains[1][1]
    for gain, old in gains[2:]:
        assert gain is not None
        assert old is not None
        assert gain.by_seed == tuple(old.by_seed[place] for place in (0, 2))


@pytest.mark.parametrize(
    ("gone", "names"),
    [
        (ANY_MAP, ["none", "teacher", "human"]),
        (("ceiling",), ["none", "any", "teacher"]),
        ((*ANY_MAP, "ceiling"), ["none", "teacher"]),
        (("baseline2",), ["any", "teacher", "human"]),
    ],
)
def test_a_rung_without_runs_is_absent(
    whole: Results, gone: tuple[str, ...], names: list[str]
) -> None:
    assert whole.record is not None
    rows = tuple(row for row in whole.setup.rows if row.key not in gone)
    record = replace(whole.record, setup=replace(whole.record.setup, rows=rows))
    ladder = ladders(record, whole.figures, whole.runs, whole.comparisons)[0]
    assert [rung.name for rung in ladder.rungs] == names
    assert (ladder.any_map is None) == ("any" not in names)
    assert (ladder.place is None) == ("any" not in names)
    teacher = ladder.rung("teacher")
    assert teacher is not None
    assert teacher.gain is not None
    assert teacher.gain.below == names[names.index("teacher") - 1]


def test_agreement_is_the_mean_over_validation_sets_and_seeds(whole: Results) -> None:
    runs = whole.runs.copy()
    place = np.arange(len(runs))
    runs["val_map_correlation"] = place / 100
    runs["val-other_map_correlation"] = np.where(place % 2, np.nan, -place / 50)
    assert whole.record is not None
    for ladder in ladders(whole.record, whole.figures, runs, whole.comparisons):
        for rung in ladder.rungs:
            own = (runs["role"] == rung.key) & (runs["alpha"] == rung.setting.alpha)
            of_seeds = [
                np.mean([at / 100] if at % 2 else [at / 100, -at / 50])
                for at in place[own & (runs["backbone"] == BACKBONE)]
            ]
            assert len(of_seeds) == len(SEEDS)
            assert rung.agreement == pytest.approx(np.mean(of_seeds))


def test_the_file_has_a_line_a_rung(whole: Results) -> None:
    frame = LADDER.table(ladder_table(whole.ladders))
    lines = LADDER.csv(frame).splitlines()
    assert lines[0].split(",") == list(LADDER.columns)
    assert len(lines) == 1 + 3 * 4
    first, second = frame.to_dict("records")[:2]
    assert (first["rung"], first["below"], first["gain_by_seed"]) == ("none", "", ())
    assert math.isnan(first["gain"])
    assert (second["rung"], second["key"], second["below"]) == ("any", "centre", "none")
    assert second["gain"] == pytest.approx(second["mean"] - first["mean"])
    assert LADDER.table(ladder_table([])).empty


def test_without_students_there_is_no_ladder(changed: Changed) -> None:
    def gone(folder: Path, member: Member) -> None:
        if member.arm.role == "student":
            (folder / "run.json").unlink(missing_ok=True)

    found = changed(gone)
    assert {ladder.set for ladder in found.ladders} == {"val", "val-other"}
    assert not found.primary_ladders


def test_the_interval_over_images_is_that_of_the_comparison(plan: Plan, whole: Results) -> None:
    """Of the control that stands for any map, on the primary set alone."""
    for ladder in whole.ladders:
        assert ladder.any_map is not None
        own = whole.comparisons[
            (whole.comparisons["key_b"] == ladder.any_map.control)
            & (whole.comparisons["backbone"] == ladder.backbone)
        ]
        ends = float(own["image_low"].iloc[0]), float(own["image_high"].iloc[0])
        known = ladder.set == plan.protocol.primary
        assert (ladder.place_images == ends) == known
        assert ladder.place is not None
        assert not known or ends[0] < ladder.place.mean < ends[1]


def test_with_several_ways_of_guidance_it_stays(tmp_path: Path) -> None:
    """Comparisons of each way alone have none over images."""
    (found,) = gather(
        scored(tmp_path, guidances={"l2": {}, "l1": {"distance": "l1"}})
    ).primary_ladders
    assert all(np.isfinite(gain.images).all() for gain in found.over_controls)
    assert len(found.over_controls) == len(ANY_MAP)
