"""The verdict and the hints say what the numbers allow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from preceptor.report.words import Findings, closing, qualifying_words, study_findings, verdict
from preceptor.results.domain import Hints, Results, StudyResults, hints_of, results_of
from preceptor.results.record import Scores, record_of
from preceptor.results.tables import COMPARISONS, FIGURES
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Arm, Member
from tests.report.ladders import compared, ladder
from tests.studies import Effect, record_with, scored_study


def results(
    means: dict[str, tuple[float, float]],
    *,
    n: int = 3,
    p: float = 0.5,
    seeds: int = 0,
    **changes: Any,
) -> Results:
    """Results with the differences to Baseline 1 and Baseline 2 of each backbone, of `seeds`."""
    lines = [
        compared(
            mean,
            question="RQ2",
            backbone=name,
            b=f"Baseline {place}",
            key_b=f"baseline{place}",
            n=n,
            p_holm=p,
        )
        for name, pair in means.items()
        for place, mean in enumerate(pair, 1)
    ]
    runs = pd.DataFrame({"run": ["one", "other"], "finished": [True, False]})
    return Results(
        record_with(
            "test",
            ("fake", "real"),
            "fake",
            **{"students": tuple(means), "seeds": (0,) * seeds} | changes,
        ),
        runs,
        FIGURES.empty(),
        comparisons=pd.DataFrame(lines) if lines else COMPARISONS.empty(),
    )


def test_a_part_of_the_study_gives_no_answer() -> None:
    """The Student of one of two backbones is ahead; the other has not been compared."""
    whole = results({"a": (0.1, 0.2), "b": (0.1, 0.2)}, n=8, p=0.01)
    assert verdict(whole).kind == "won"
    part = results({"a": (0.1, 0.2)}, n=8, p=0.01, students=("a", "b"))
    found = verdict(part)
    assert found.kind == "open"
    assert found.text == (
        "The Student of b has not been compared with both baselines yet: "
        "1 of 2 trainings are finished."
    )


@pytest.mark.parametrize(
    ("means", "n", "p", "kind", "words"),
    [
        ({"a": (0.1, 0.2)}, 8, 0.01, "won", "better than both baselines"),
        ({"a": (0.1, 0.2)}, 3, 0.5, "ahead", "With 3 seeds no difference can be significant"),
        ({"a": (0.1, 0.2)}, 8, 0.2, "ahead", "none of 2 differences is a sig"),
        ({"a": (0.1, 0.2), "b": (0.1, -0.2)}, 3, 0.5, "mixed", "for a only"),
        ({"a": (0.1, -0.2)}, 3, 0.5, "lost", "No gain"),
        ({"a": (0.1, 0.2)}, 1, 1.0, "open", "one seed"),
        ({"a": (0.1, float("nan"))}, 3, 0.5, "open", "1 of 2 trainings"),
        ({}, 3, 0.5, "open", "1 of 2 trainings"),
    ],
)
def test_verdict(
    means: dict[str, tuple[float, float]], n: int, p: float, kind: str, words: str
) -> None:
    found = verdict(results(means, n=n, p=p))
    assert found.kind == kind
    assert words in found.headline + " " + found.text


def test_an_unfinished_study_says_so() -> None:
    """Half of the trainings are finished, and all seeds of the compared models."""
    found = verdict(results({"a": (0.1, 0.2)}, n=8, p=0.01, seeds=8))
    assert (found.kind, found.text) == (
        "won",
        "It is significantly above both baselines for every backbone. So far, 1 of 2 trainings are "
        "finished.",
    )
    finished = results({"a": (0.1, 0.2)}, n=8, p=0.01, seeds=8)
    finished.runs["finished"] = True
    assert "So far" not in verdict(finished).text
    finished.unscored.append("one")
    assert "1 of them has no scores of the test sets" in verdict(finished).text


def test_many_seeds_have_an_answer() -> None:
    found = verdict(results({"a": (0.1, 0.2)}, n=70, p=0.5, seeds=70))
    assert "no difference can be significant" not in found.text


def test_a_test_needs_all_of_its_seeds() -> None:
    """Seven of ten seeds are finished; the number of seeds was fixed before."""
    found = verdict(results({"a": (0.1, 0.2)}, n=7, p=0.03, seeds=10))
    assert (found.kind, found.headline) == ("ahead", "The Student is ahead, but seeds are missing")
    assert "after 7 of 10 seeds; the test needs all of them." in found.text
    assert verdict(results({"a": (0.1, 0.2)}, n=7, p=0.03, seeds=7)).kind == "won"
    found = verdict(results({"a": (-0.1, -0.2)}, n=7, p=0.03, seeds=10))
    assert "trainings are finished; the tests need all of them." in found.text


def test_a_significant_loss_is_a_result() -> None:
    found = verdict(results({"a": (-0.2, -0.1)}, n=8, p=0.01))
    assert found.kind == "lost"
    assert "; it is significantly below both baselines." in found.text
    one = results({"a": (-0.2, 0.1)}, n=8, p=0.01)
    assert "; it is significantly below “Baseline 1”." in verdict(one).text
    two = results({"a": (0.1, 0.2), "b --- c": (-0.2, 0.1)}, n=8, p=0.01)
    two.comparisons.index = two.comparisons.index + 7
    found = verdict(two)
    assert found.kind == "mixed"
    said = "for a only; 3 of 4 differences are significant gains; it is significantly below a"
    assert f"{said} baseline for b --- c." in found.text
    last = closing(Findings(found, {}), StudyResults({"": two}))
    assert last["found"].endswith("on test, AUC −0.200 over Baseline 1, best α for b --- c.")
    two.comparisons["image_high"] = 0.01  # the loss of b, over images
    assert "below a baseline for b --- c on these test images." in verdict(two).text


@pytest.mark.parametrize(
    ("half", "words"),
    [
        (0.1, "was found."),
        (0.011, "was found; a gain of 0.01 is excluded."),
        (0.007, "was found; equivalent within ±0.01."),
        (0.001, "was found; equivalent within ±0.01."),  # a loss that p does not show
    ],
)
def test_a_gain_that_the_interval_excludes(half: float, words: str) -> None:
    given_results = results({"a": (0.1, -0.002)}, n=8)
    compared = given_results.comparisons
    for seeds, images, sign in (("low", "image_low", -1), ("high", "image_high", 1)):
        compared[seeds] = compared[images] = compared["mean"] + sign * half
    assert words in verdict(given_results).text
    compared["image_low"], compared["image_high"] = compared["mean"] - 0.1, compared["mean"] + 0.1
    assert "was found." in verdict(given_results).text


def test_a_gain_that_few_test_images_show_is_one_on_these_images() -> None:
    shown = results({"a": (0.2, 0.3)}, n=8, p=0.01)
    assert verdict(shown).headline == "The Student is better than both baselines"
    shown.comparisons["image_low"] = [-0.01, 0.05]
    found = verdict(shown)
    assert found.headline == "The Student is better than both baselines on these test images"
    assert "the intervals of 1 of 2 differences contain 0." in found.text


def test_gains_on_these_images_alone_are_counted_in_every_case() -> None:
    ahead = results({"a": (0.2, 0.3), "b": (0.1, 0.2)}, n=8, p=0.01)
    ahead.comparisons.loc[3, "p_holm"] = 0.2
    ahead.comparisons.loc[:1, "image_low"] = -0.01
    said = "but 3 of 4 differences are significant gains (2 on these test images only)."
    assert said in verdict(ahead).text


def test_several_domains_with_several_backbones_are_counted_in_pairs() -> None:
    pair = {"a": (0.1, 0.2), "b": (0.1, -0.2)}
    several = StudyResults({name: results(pair, domain=name) for name in ("x", "y")})
    found = verdict(several)
    assert found.headline == "The Student is ahead for 2 of 4 pairs of domain and backbone"
    assert "for x with a and y with a only" in found.text


@pytest.mark.parametrize(
    ("place", "half", "words"),
    [
        (0.03, 0.01, ": the place that the Teacher's maps show increases the AUC."),
        (0.03, 0.05, ": a gain from the place is not shown."),
        (-0.03, 0.01, ": maps that do not show the place guide better."),
    ],
)
def test_what_the_place_is_worth(place: float, half: float, words: str) -> None:
    found = results({"a": (0.1, 0.2)})
    assert verdict(found).place == ""
    found.ladders = [ladder(place, half)]
    said = verdict(found)
    assert said.place.startswith("What the place of the maps is worth, ")
    assert "(Centered map, α 0.25), is " in said.place
    assert said.place.endswith(words)
    assert said.sentences == f"{said.text} {said.place}"
    for at in (0, 1):  # one control is enough
        over = [*(whole := ladder(place, half)).over_controls]
        over[at] = replace(over[at], images=(-0.05, 0.05))
        found.ladders = [replace(whole, over_controls=tuple(over))]
        limited = half < 0.03 and (place > 0 or at == 1)
        assert ("the interval contains 0" in verdict(found).place) == limited


NAN = float("nan")


@pytest.mark.parametrize(
    ("mean", "seeds", "images", "words"),
    [
        (0.0, (-0.02, 0.02), (-0.02, 0.02), ""),
        (0.0, (-0.005, 0.005), (-0.005, 0.005), "; equivalent within ±0.01"),
        (-0.02, (-0.045, 0.005), (-0.045, 0.005), "; a gain of 0.01 is excluded"),
        (0.02, (-0.005, 0.045), (-0.005, 0.045), "; a loss of 0.01 is excluded"),
        (0.0, (NAN, NAN), (NAN, NAN), ""),
        # The interval over images has to exclude it, too.
        (0.001, (-0.004, 0.006), (-0.03, 0.009), "; a gain of 0.01 is excluded"),
        (0.001, (-0.004, 0.006), (-0.009, 0.03), "; a loss of 0.01 is excluded"),
        (0.001, (-0.004, 0.006), (-0.03, 0.03), ""),  # too few test images
        # A mean over backbones.
        (0.001, (-0.004, 0.006), (NAN, NAN), "; equivalent within ±0.01 on these test images"),
        # A gain over seeds.
        (0.002, (0.001, 0.003), (-0.030, 0.034), "; not shown for other test images"),
        (0.002, (0.001, 0.003), (0.0005, 0.0035), "; equivalent within ±0.01"),
        (0.002, (0.001, 0.003), (0.0005, 0.0200), ""),
    ],
)
def test_a_comparison_says_what_its_intervals_exclude(
    mean: float, seeds: tuple[float, float], images: tuple[float, float], words: str
) -> None:
    ends = {"low": seeds[0], "high": seeds[1], "image_low": images[0], "image_high": images[1]}
    assert qualifying_words(compared(mean, question="ceiling", **ends)) == words


def test_two_sides_with_an_auc_of_1_are_not_called_equivalent() -> None:
    """No seed and no resample differs, whatever another set of images would show."""
    assert qualifying_words(compared(0.0, 0.0, question="ceiling")) == ""


def hinted(
    folder: Path, effect: Effect, lost: Sequence[str] = (), grid: int = 4, **values: Any
) -> tuple[Hints, str]:
    """Hints on a study of six seeds where the test tells some roles nothing, and their words."""
    sizes = {"train": 24, "val": 60, "test-unseen": 60}
    plan = scored_study(folder, effect, sizes, seeds=6, controls=(), **values)
    for file in folder.glob("store/runs/*/run.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"grid": [grid, grid]}))
    record = record_of(plan)

    def scores(member: Member) -> Scores:
        val, test = record.scores(member)
        if test is not None and member.arm.role in lost:
            test = test.assign(score_marked=0.5, score_plain=0.5)
        return val, test

    found = StudyResults({"": results_of(replace(record, scores=scores))})
    parts = study_findings(StudyPlan.of(plan), found).by_domain[""].hints
    return hints_of(plan, found.first), " ".join(f"{title}. {text}" for title, text in parts)


@pytest.mark.parametrize(
    ("lost", "step", "words"),
    [
        (["baseline2"], "", "; the Student has 0.9"),  # the gain over Baseline 1 is uncertain
        (["baseline2", "student", "ceiling"], "family", "Only class activation maps were guided"),
    ],
)
def test_a_set_that_falls_apart_without_maps_is_named(
    tmp_path: Path, lost: list[str], step: str, words: str
) -> None:
    hints, said = hinted(tmp_path, lambda arm, seed: 2.0, lost)
    assert hints.fall is not None
    assert (hints.fall.high, hints.fall.low, hints.fall.low_auc) == ("val", "test-unseen", 0.5)
    assert not hints.fall.sources
    assert hints.next == step
    assert said.startswith(
        "A shortcut is possible. Without maps, test_byobnet has an AUC of "
        f"{hints.fall.high_auc:.3f} on val and 0.500 on test-unseen"
    )
    assert words in said


def test_nothing_more_is_advised_where_a_gain_is_excluded(tmp_path: Path) -> None:
    hints, said = hinted(tmp_path, lambda arm, seed: 0.5 + (arm.role == "baseline1"))
    assert hints.next == "nothing"
    assert "a gain of 0.01 over the stronger baseline is excluded" in said


def test_nothing_is_excluded_where_the_interval_over_images_includes_a_gain(tmp_path: Path) -> None:
    plan = scored_study(
        tmp_path,
        lambda arm, seed: 0.5,
        {"train": 24, "val": 60, "test-unseen": 60},
        seeds=6,
        controls=(),
    )
    found = results_of(record_of(plan))
    found.comparisons["low"], found.comparisons["high"] = -0.05, -0.02
    for high, step in ((0.05, ""), (0.0, "nothing")):
        found.comparisons["image_low"], found.comparisons["image_high"] = -0.1, high
        assert hints_of(plan, found).next == step
    found.comparisons["n"] = 5
    assert hints_of(plan, found).next == ""  # a seed is missing


def test_what_is_next_is_more_marks_where_all_of_them_gain(tmp_path: Path) -> None:
    hints, said = hinted(tmp_path, lambda arm, seed: 0.5 + (arm.role == "ceiling"))
    assert hints.fall is hints.coarse is None
    assert hints.more is not None
    assert (hints.next, hints.more[1:]) == ("marks", (6, 12, "test_byobnet"))
    assert (
        f"From 6 to 12 marked images the AUC of test_byobnet rises by {hints.more[0]:.3f}." in said
    )


def test_more_marks_are_no_hint_where_all_images_are_marked(tmp_path: Path) -> None:
    hints, said = hinted(tmp_path, lambda arm, seed: 0.5 + (arm.role == "ceiling"), annotated=None)
    assert hints.more is None
    assert "Next: more marks" not in said


def test_a_teacher_without_marks_and_marks_below_the_grid_are_told(tmp_path: Path) -> None:
    def effect(arm: Arm, seed: int) -> float:
        return 0.5 + ("data-driven" in arm.teacher)

    hints, said = hinted(tmp_path, effect, grid=1, data_driven=True)
    assert hints.teachers[True] > hints.teachers[False]
    assert "The chosen Teacher saw no marks. Validation chose the data-driven " in said
    assert hints.coarse == (1.0, (1, 1), "test_byobnet")
    assert "100% of the human maps mark less than half a cell of the 1 × 1 grid" in said


def test_a_solved_task_is_called_solved(tmp_path: Path) -> None:
    """Also with two seeds, which could show nothing else: more seeds change nothing."""
    splits = {"train": 12, "val": 24, "test-unseen": 24}
    plan = scored_study(tmp_path, lambda arm, seed: 40.0, splits, seeds=2, controls=())
    said = verdict(results_of(record_of(plan)))
    assert said.headline == "The task is solved without maps"
    assert "reverse" not in said.text
