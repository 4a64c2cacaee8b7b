"""Seeds until intervals are narrow: what is looked at, what is run, and that no kill changes it.

Most trainings are replaced by score tables whose AUCs follow from the arm and the seed; plan,
selections, looks, graph, files and report are real. One study is trained.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from preceptor.config.yaml_file import load_config, parse_config
from preceptor.driver import run_study
from preceptor.evaluation.paired_tests import paired_difference
from preceptor.evaluation.sequential import sequential_difference, sequential_p
from preceptor.report.write import csv_files, write_results
from preceptor.results.comparisons import BY_TEACHER
from preceptor.results.domain import StudyResults, gather_study
from preceptor.results.rows import records
from preceptor.study.alphas import PAPER_ALPHA
from preceptor.study.config import StudyConfig
from preceptor.study.looks import Interval, LookResult
from preceptor.study.steps import Arm, Evaluate, Look, Train
from preceptor.study.study_plan import StudyPlan
from preceptor.study_folder import read_study, reopen
from tests.commands import assert_refused, here
from tests.datasets import SQUARES_STUDY, squares
from tests.studies import walk, write_down

LOOKS = [2, 3, 4]
SPLITS = {"train": 24, "val": 24, "test-unseen": 60}


def effect(arm: Arm, seed: int) -> float:
    """Students are better, by a number that differs from seed to seed; α 0.1 is the best."""
    own = {"student": 2.0, "baseline2": 1.0}.get(arm.role, 0.8)
    return own - 0.3 * (arm.alpha == PAPER_ALPHA) + 0.4 * math.sin(3 * seed + len(arm.role))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("data") / "squares", splits=SPLITS)


def study(manifest: Path, width: float = 1e-6, **changes: Any) -> StudyConfig:
    values: dict[str, Any] = SQUARES_STUDY | {
        "manifest": str(manifest),
        "alphas": [0.1, 0.5],
        "data_driven": True,
        "controls": ["centre"],
        "variants": {"early": {"alpha": 0.2}},
        "seeds": {"auto": {"width": width, "looks": LOOKS}},
        "training": {"input_size": 32},
    }
    return parse_config(values | changes, StudyConfig)


def written(config: StudyConfig, out: Path) -> StudyPlan:
    """The study, with results that are written down."""
    plans = read_study(config, out)
    write_down(plans, effect)
    return plans


def looked(plans: StudyPlan) -> list[LookResult]:
    return list(plans.first.looks.values())


def seeds_of(plans: StudyPlan) -> dict[tuple[str, float], set[int]]:
    found: dict[tuple[str, float], set[int]] = {}
    for member in plans.first.members:
        found.setdefault((member.arm.label, member.arm.alpha), set()).add(member.seed)
    return found


@pytest.fixture(scope="module")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyPlan, Path]:
    """A study that reaches the limit."""
    out = tmp_path_factory.mktemp("whole")
    return written(study(manifest), out), out


def width_for(whole: StudyPlan, place: int) -> float:
    """A width that is reached at this look, and at no earlier one."""
    widths = [one.widest.width for one in looked(whole)]
    assert widths[place] < min(widths[:place], default=np.inf)
    return float(widths[place]) * 1.0001


def test_the_limit_is_reached_where_no_interval_is_narrow(whole: tuple[StudyPlan, Path]) -> None:
    plans, _ = whole
    assert [(one.seeds, one.next) for one in looked(plans)] == [(2, 3), (3, 4), (4, None)]
    assert [key.seeds for key in plans.first.looks] == LOOKS
    assert "limit of seeds is reached" in looked(plans)[-1].reason
    assert all(len(one.intervals) == 2 for one in looked(plans))


@pytest.mark.parametrize("place", [0, 1])
def test_a_study_stops_at_the_first_look_with_narrow_intervals(
    manifest: Path, whole: tuple[StudyPlan, Path], tmp_path: Path, place: int
) -> None:
    plans = written(study(manifest, width_for(whole[0], place)), tmp_path)
    assert [one.seeds for one in looked(plans)] == LOOKS[: place + 1]
    assert looked(plans)[-1].next is None
    assert looked(plans)[-1].reason.endswith("the study stops.")
    # What was looked at before is the same whatever the wanted width.
    for one, other in zip(looked(plans), looked(whole[0]), strict=False):
        assert one.intervals == other.intervals
    assert max(member.seed for member in plans.first.members) == LOOKS[place] - 1


def test_every_row_has_all_seeds_and_selections_those_of_the_first_look(
    whole: tuple[StudyPlan, Path],
) -> None:
    plans, _ = whole
    seeds, every, first = seeds_of(plans), set(range(4)), set(range(2))
    shown = ("student", "baseline1", "centre", "ceiling", "variant early")
    for arm in (("baseline1", PAPER_ALPHA), ("baseline2", 1.0), *((one, 0.1) for one in shown)):
        assert seeds[arm] == every, arm
    for arm in (("student", 0.5), ("centre", 0.5), ("ceiling", 0.5)):  # not selected
        assert seeds[arm] == first, arm
    # The data-driven Teacher was not selected.
    assert seeds["teacher", 1.0] == first
    assert seeds["teacher", 0.5] == every
    fixed = replace(plans.first, looks={})
    assert fixed.seeds == tuple(first)


def test_choices_do_not_depend_on_the_looks(
    manifest: Path, whole: tuple[StudyPlan, Path], tmp_path: Path
) -> None:
    two = written(study(manifest, seeds=2), tmp_path)
    assert two.first.choices == whole[0].first.choices
    assert two.first.looks == {}


def test_the_outline_has_the_least_and_the_most_trainings(
    manifest: Path, whole: tuple[StudyPlan, Path], tmp_path: Path
) -> None:
    def runs(steps: list[Any]) -> set[str]:
        return {step.id for step in steps if isinstance(step.work, Train | Evaluate)}

    config = study(manifest, 1.99)
    least = written(config, tmp_path)
    for plans, most in ((least, False), (whole[0], True)):
        first, later = plans.outline(most)
        found = runs([*first, *later])
        ours = runs(list(plans.first.steps.values()))
        assert len(found) == len(ours)
    assert least.first.looks.keys() == {Look("", 2)}  # an outline changes nothing


@pytest.fixture(scope="module")
def found(whole: tuple[StudyPlan, Path]) -> StudyResults:
    return gather_study(whole[0])


def test_intervals_and_p_values_are_corrected(
    whole: tuple[StudyPlan, Path], found: StudyResults
) -> None:
    results = found.first
    figures = results.figures
    whole_set = figures[(figures["set"] == "test-unseen") & (figures["source"] == "")]

    def aucs(role: str, alpha: float) -> np.ndarray[Any, Any]:
        part = whole_set[(whole_set["role"] == role) & (whole_set["alpha"] == alpha)]
        part = part[part["teacher"].isin(["", str(whole[0].first.winner())])]
        return part.drop_duplicates("seed").sort_values("seed")["auc"].to_numpy()

    rows = {(row["question"], row["key_b"]): row for row in records(results.comparisons)}
    sides = [("RQ2", "baseline1", 0.1), ("RQ2", "baseline2", 1.0), ("control", "centre", 0.1)]
    for question, key, alpha in sides:
        row = rows[question, key]
        both = aucs("student", 0.1), aucs(key, alpha)
        ours, plain = sequential_difference(*both, LOOKS), paired_difference(*both)
        assert (row["n"], row["p"], row["p_floor"]) == (4, ours.p, ours.p_floor)
        assert (row["low"], row["high"]) == pytest.approx((ours.low, ours.high))
        assert ours.low < plain.low
        assert ours.high > plain.high
        assert ours.p == sequential_p(plain.p, 4, LOOKS)
        assert row["image_low"] < row["mean"] < row["image_high"]
    # The interval of the last look is the one that the report shows.
    for one in looked(whole[0])[-1].intervals:
        row = rows["RQ2", one.baseline]
        assert (row["low"], row["high"]) == pytest.approx((one.low, one.high))
    # Teachers are compared on the seeds of the first look, whose number is fixed.
    teachers = results.comparisons[results.comparisons["question"].isin(BY_TEACHER)]
    assert set(teachers["n"]) == {2}
    assert set(teachers["p_floor"]) == {0.5}


def test_the_report_says_how_often_the_test_set_was_looked_at(
    whole: tuple[StudyPlan, Path], tmp_path: Path
) -> None:
    plans, _ = whole
    write_results(plans, tmp_path)
    page = (tmp_path / "report.html").read_text().replace("\u00a0", " ")
    assert "test-unseen has been looked at 3 times" in page
    assert "intervals are corrected for these looks" in page
    assert "stop: the limit" in page
    assert "Test sets were scored once" not in page
    assert "4 seeds" in page
    summary = json.loads((tmp_path / "summary.json").read_text())["looks"]
    assert summary["planned"] == LOOKS
    assert [one["seeds"] for one in summary["made"]] == LOOKS
    assert 0.95 < summary["level"] < 1


def test_a_study_that_was_interrupted_at_any_step_looks_the_same_again(
    manifest: Path, whole: tuple[StudyPlan, Path], found: StudyResults, tmp_path: Path
) -> None:
    plans, out = whole
    for kept in (0.4, 0.8):
        again = tmp_path / str(kept)
        shutil.copytree(out, again)
        done = sorted(again.glob("store/*/*/run.json"), key=lambda file: file.parent.name)
        for file in done[int(kept * len(done)) :]:
            shutil.rmtree(file.parent)
        resumed = read_study(study(manifest), again)
        write_down(resumed, effect)
        assert resumed.first.looks == plans.first.looks
        assert resumed.first.choices == plans.first.choices
    tables, expected = csv_files(resumed, gather_study(resumed)), csv_files(plans, found)
    for name in ("results.csv", "table.csv", "comparisons.csv"):
        assert tables[name] == expected[name], name


def test_each_domain_stops_by_its_own_intervals(manifest: Path, tmp_path: Path) -> None:
    other = squares(tmp_path / "other", splits=SPLITS | {"test-unseen": 24}, seed=1)
    domains = {"one": {"manifest": str(manifest)}, "the other": {"manifest": str(other)}}

    def made(width: float, out: Path) -> StudyPlan:
        changes = {"controls": [], "variants": {}, "ceiling": False, "data_driven": False}
        config = study(manifest, width, alphas=[0.5], **changes)
        given = config.model_dump(mode="json") | {"manifest": None, "domains": domains}
        return written(parse_config(given, StudyConfig), out)

    widths = {
        plan.domain: list(plan.looks.values())[1].widest.width
        for plan in made(1e-6, tmp_path / "limit")
    }
    plans = made(sum(widths.values()) / 2, tmp_path / "out")
    ends = {plan.domain: list(plan.looks)[-1].seeds for plan in plans}
    narrow, wide = sorted(widths, key=lambda name: widths[name])
    assert ends == {narrow: 3, wide: 4}
    family = gather_study(plans).family
    assert dict(zip(family["domain"], family["n"], strict=True)) == ends


def test_an_interval_without_limits_is_not_narrow() -> None:
    nan = float("nan")
    known, unknown = Interval("a", "baseline1", -1.0, 1.0), Interval("a", "baseline2", nan, nan)
    result = LookResult(3, (known, unknown), 1.99, 5)
    assert result.widest == unknown
    assert "is undefined, more than 1.99; the study goes on to 5 seeds." in result.reason


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ({"auto": {"width": 0}}, "seeds.auto.width: 0 is not"),
        ({"auto": {"width": 2.5}}, "seeds.auto.width: 2.5 is not"),
        ({"auto": {"looks": [3]}}, "seeds.auto.looks: [3] are not two or more"),
        ({"auto": {"looks": [1, 3]}}, "seeds.auto.looks: [1, 3] are not"),
        ({"auto": {"looks": [5, 3]}}, "seeds.auto.looks: [5, 3] are not"),
        ({"auto": {"looks": [3, 2000]}}, "2,000 is above the maximum of 1,000"),
        ({"auto": {"looks": "all"}}, "or {auto: {width: 0.03, looks: [3, 5, 8]}}"),
        ({"auto": {"widht": 0.1}}, "or {auto: {width: 0.03, looks: [3, 5, 8]}}"),
        ("automatic", "or {auto: {width: 0.03, looks: [3, 5, 8]}}"),
    ],
)
def test_bad_looks_are_refused_in_one_line(
    manifest: Path, tmp_path: Path, seeds: Any, words: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(SQUARES_STUDY | {"manifest": str(manifest), "seeds": seeds}))
    assert_refused(here("study", "plan", file), [words], 1)


def test_auto_alone_has_the_defaults_and_is_written_out(manifest: Path, tmp_path: Path) -> None:
    config = study(manifest, seeds="auto")
    assert config.looks == (3, 5, 8, 12, 20)
    assert config.first_seeds == (0, 1, 2)
    assert config.seed_list == tuple(range(20))
    assert config == parse_config(config.model_dump(mode="json"), StudyConfig)
    fixed = study(manifest, seeds=[7, 3])
    assert (fixed.looks, fixed.first_seeds) == ((), (7, 3))
    assert study(manifest, search="racing", seeds="auto").rungs == (2, 3)


def test_a_trained_study_repeats_no_run_and_tells_its_plan(tmp_path: Path) -> None:
    squares(tmp_path / "data")
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    values = SQUARES_STUDY | {
        "manifest": "data/manifest.csv",
        "controls": [],
        "ceiling": False,
        "seeds": {"auto": {"width": 1e-6, "looks": [2, 3]}},
        "training": {"input_size": 32, "epochs": 1, "batch_size": 8, "schedule": "constant"},
    }
    file.write_text(yaml.safe_dump(values))
    config = load_config(file, StudyConfig)
    # The first seeds are those of a study with two seeds, whose store is used.
    walk(config.model_copy(update={"seeds": 2}), out / "store")
    before = {one: one.stat().st_mtime_ns for one in out.glob("store/*/*/run.json")}
    walk(config, out / "store")
    assert {one: one.stat().st_mtime_ns for one in before} == before
    fresh = set(out.glob("store/*/*/run.json")) - set(before)
    kinds = Counter(one.parent.parent.name for one in fresh)
    assert kinds == {"runs": 3, "maps": 1, "evaluations": 3}  # a Teacher is a Baseline 1
    lines: list[str] = []
    result = run_study(config, out, jobs=1, tell=lines.append)
    assert (result.computed, result.missing, result.failed) == (0, 0, {})
    assert any("after 2 seeds: the widest interval" in line for line in lines)
    table = pd.read_csv(out / "comparisons.csv")
    assert set(table[table["question"] == "RQ2"]["n"]) == {3}
    again = reopen(out)
    assert [one.seeds for one in looked(again)] == [2, 3]
    assert csv_files(again, gather_study(again))["comparisons.csv"] == (
        (out / "comparisons.csv").read_text()
    )

    plan = here("study", "plan", file, "--out", out, "--jobs", 1)
    assert plan.code == 0, plan.err
    assert "at least 2 seeds:" in plan.out
    assert "at most 3 seeds:" in plan.out
    assert plan.out.endswith("together about 0 seconds to 0 seconds with 1 job\n")
