"""What is said and drawn of a ladder is true of a gain, of none, and of a loss."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest

from preceptor.report.ladder_blocks import ladder_blocks
from preceptor.report.ladder_figure import LEGEND, ladder_plot
from preceptor.report.ladder_words import (
    agreement_words,
    any_map_words,
    place_clause,
    rung_sentences,
    rung_table,
)
from preceptor.results.domain import Results
from preceptor.results.ladder import AnyMap, Ladder
from tests.report.ladders import ladder

RAISES = "the place that the Teacher's maps show increases the AUC"
NOT_SHOWN = "a gain from the place is not shown"


@pytest.mark.parametrize(
    ("place", "half", "n", "words"),
    [
        (0.05, 0.02, 8, RAISES),
        (0.05, 0.07, 8, NOT_SHOWN),
        (-0.05, 0.07, 8, NOT_SHOWN),
        (0.02, 0.025, 8, f"{NOT_SHOWN} (a loss of 0.01 is excluded on these test images)"),
        (-0.02, 0.025, 8, f"{NOT_SHOWN} (a gain of 0.01 is excluded on these test images)"),
        (0.004, 0.005, 8, f"{NOT_SHOWN} (equivalent within ±0.01 on these test images)"),
        (-0.05, 0.02, 8, "maps that do not show the place guide better"),
        (0.05, math.nan, 1, "one seed supports no conclusion"),
    ],
)
def test_the_place_of_one_backbone(place: float, half: float, n: int, words: str) -> None:
    text = place_clause([ladder(place, half, n=n)], "own", 0.01)
    assert text.endswith(f": {words}")
    sign = "+" if place > 0 else "−"
    assert f"with any map (Centred map, α 0.25), is {sign}{abs(place):.3f} (" in text
    if n > 1:
        assert "(95 % interval " in text
        assert f"over {n} seeds)" in text
    else:
        assert "(one seed has no interval)" in text


def test_the_place_is_not_equivalent_by_few_test_images() -> None:
    words = NOT_SHOWN
    alone = ladder(0.004, 0.005)
    few, many = (replace(alone, place_images=ends) for ends in ((-0.03, 0.04), (-0.003, 0.009)))
    assert place_clause([few], "own", 0.01).endswith(f": {words}")
    assert place_clause([many], "own", 0.01).endswith(f": {words} (equivalent within ±0.01)")


def test_a_gain_from_the_place_that_few_test_images_do_not_show() -> None:
    alone = ladder(0.05, 0.02)
    few, many = (replace(alone, place_images=ends) for ends in ((-0.01, 0.1), (0.01, 0.1)))
    assert place_clause([few], "own", 0.01).endswith("is not shown for other test images")
    assert place_clause([many], "own", 0.01).endswith(f": {RAISES}")


NOT_OVER_ALL = "a gain from the place over every control is not shown"


@pytest.mark.parametrize(
    ("shuffled", "also", "words"),
    [
        (0.06, "", RAISES),
        (0.03, "; over another control (Shuffled maps) it is +0.030 (+0.010 to +0.050)", RAISES),
        (
            0.01,
            "; over another control (Shuffled maps) it is +0.010 (−0.010 to +0.030)",
            NOT_OVER_ALL,
        ),
    ],
)
def test_the_place_is_shown_over_every_control_or_not_at_all(
    shuffled: float, also: str, words: str
) -> None:
    text = place_clause([ladder(0.05, 0.02, shuffled=shuffled)], "own", 0.01)
    assert text.endswith(f"over 8 seeds){also}: {words}")
    drawn = ladder_plot([("a", ladder(0.05, 0.02, shuffled=shuffled))], "AUC on test")
    assert drawn is not None
    assert ("; over Shuffled maps +0.0" in drawn.title) == bool(also)


def test_controls_at_the_students_alpha_support_no_conclusion() -> None:
    for found in ([ladder(0.05, 0.02)], [ladder(0.05, 0.02), ladder(-0.05, 0.02)]):
        text = place_clause(found, "student", 0.01)
        assert "at the Student's α instead of their own" in text
        assert RAISES not in text


def test_several_backbones_are_counted() -> None:
    found = [ladder(0.05, 0.02), ladder(0.01, 0.02), ladder(-0.04, 0.01), ladder(0.03, 0.02)]
    text = place_clause(found, "own", 0.01)
    assert "is −0.040 to +0.050 in 4 comparisons" in text
    told = "over every control in 2, decreases it in 1, and makes no distinguishable difference in "
    assert f"{RAISES} {told}1" in text
    found.append(ladder(0.05, 0.02, shuffled=0.01))
    assert (
        f"{RAISES} over every control in 2, over any map but not over every control in 1, "
        "decreases it in 1, and makes no distinguishable difference in 1"
    ) in place_clause(found, "own", 0.01)
    assert ", is +0.050 in 2 comp" in place_clause([ladder(0.05, 0.02)] * 2, "own", 0.01)
    one_seed = [ladder(0.05, math.nan, n=1)] * 2
    assert place_clause(one_seed, "own", 0.01).endswith("one seed supports no conclusion")


def test_without_any_map_there_is_nothing_to_say() -> None:
    whole = ladder(0.05, 0.02)
    low = whole.rungs[0]
    teacher = whole.rungs[2]
    assert teacher.gain is not None
    straight = replace(teacher, gain=replace(teacher.gain, below="none"))
    alone = replace(whole, rungs=(low, straight), any_map=None)
    assert place_clause([alone], "own", 0.01) == ""
    (text,) = rung_sentences([alone])
    assert text == (
        "test_byobnet: the AUC on test is 0.600 without maps and 0.750 with the Teacher's maps."
    )


def test_every_rung_in_a_sentence() -> None:
    (text,) = rung_sentences([ladder(0.05, 0.02)])
    assert text == (
        "test_byobnet: the AUC on test is 0.600 without maps, 0.700 with any map "
        "(Centred map, α 0.25), 0.750 with the Teacher's maps and 0.850 with all human maps."
    )


def test_which_control_is_any_map() -> None:
    text = any_map_words([ladder(0.05, 0.02), ladder(0.05, 0.02, backbone="other")])
    assert "the best of “Shuffled maps”, “Centred map” and “PCA maps”, selected on va" in text
    assert "selects α: “Centred map” for test_byobnet and “Centred map” for other. The" in text
    only = replace(ladder(0.05, 0.02), any_map=AnyMap("pca", ("pca",), "pca: it is the best."))
    assert "in their image: “PCA maps”. The gain" in any_map_words([only])
    assert any_map_words([replace(only, any_map=None)]) == ""


def test_agreement_is_told_where_there_are_human_maps() -> None:
    plain = ladder(0.05, 0.02)
    assert agreement_words([plain]) == ""
    known = [
        replace(rung, agreement=value)
        for rung, value in zip(plain.rungs, (0.655, 0.1, math.nan, 0.84), strict=True)
    ]
    text = agreement_words([replace(plain, rungs=tuple(known)), plain])
    told = "test_byobnet: 0.66 without maps, 0.10 with any map and 0.84 with all human maps. If"
    assert told in text
    assert "Teacher" not in text


def test_the_table_has_a_row_a_rung() -> None:
    found = rung_table([ladder(0.05, 0.02)])
    assert found is not None
    assert [line.heading for line in found.lines] == [
        "No maps",
        "Any map: Centred map",
        "Teacher's maps",
        "All human maps",
    ]
    assert [line.strong for line in found.lines] == [False, False, True, False]
    assert [[cell.text for cell in line.cells] for line in found.lines[:3]] == [
        ["0.600 ± 0.030", "0.570 to 0.630", "–", "–", "–"],
        ["0.700 ± 0.030", "0.670 to 0.730", "+0.100", "+0.090 to +0.110", "0.500"],
        ["0.750 ± 0.030", "0.720 to 0.780", "+0.050", "+0.030 to +0.070", "0.500"],
    ]
    whole = ladder(0.05, 0.02)
    teacher = whole.rungs[2]
    assert teacher.gain is not None
    small = replace(teacher.gain.paired, p=0.0001, p_floor=2 / 2**14)
    rungs = (*whole.rungs[:2], replace(teacher, gain=replace(teacher.gain, paired=small)))
    certain = rung_table([replace(whole, rungs=rungs)])
    assert certain is not None
    last = certain.lines[-1].cells[-1]
    assert (last.text, last.note) == ("<0.001", "floor <0.001")
    several = rung_table([ladder(0.05, 0.02), ladder(0.05, 0.02, backbone="other")])
    assert several is not None
    assert several.lines[5].heading == "other: any map: Centred map"
    assert rung_table([]) is None


def test_a_figure_shows_and_tells_every_rung() -> None:
    rows = [(f"network {number}", ladder(0.05, 0.02)) for number in range(3)]
    drawn = ladder_plot(rows, "AUC on test")
    assert drawn is not None
    assert drawn.series == {key for key, _ in LEGEND}
    marks = [element.text for element in drawn.body if element.text.startswith("<circle")]
    assert len(marks) == 12
    assert sum("place +0.050 (+0.030 to +0.070)" in one.text for one in drawn.body) == 3
    told = "no maps 0.600, any map 0.700, Teacher's maps 0.750, all human maps 0.850, place +0.050"
    assert drawn.title.count(told) == 3
    assert ladder_plot([], "AUC on test") is None


def test_one_seed_has_no_intervals() -> None:
    drawn = ladder_plot([("a", ladder(0.05, math.nan, n=1))], "AUC on test")
    assert drawn is not None
    assert not any('class="mean' in element.text for element in drawn.body)
    assert "nan" not in "".join(element.text for element in drawn.body)
    assert any(">place +0.050</text>" in element.text for element in drawn.body)


def test_marks_lie_on_one_scale() -> None:
    drawn = ladder_plot([("a", ladder(0.05, 0.02))], "AUC on test")
    assert drawn is not None
    centers = [
        float(element.text.split('cx="')[1].split('"')[0])
        for element in drawn.body
        if element.text.startswith("<circle")
    ]
    steps = [after - before for before, after in pairwise(centers)]
    assert steps[0] == pytest.approx(2 * steps[1], abs=0.2)  # +0.1, +0.05, +0.1
    assert steps[0] == pytest.approx(steps[2], abs=0.2)
    assert all(136 <= center <= 342 for center in centers)


def test_blocks_begin_with_the_answer_and_end_with_the_other_sets() -> None:
    def on(name: str) -> Ladder:
        return replace(ladder(0.05, 0.02), set=name)

    runs = pd.DataFrame({"run": ["one"], "finished": [True]})
    found = Results("test", "marked", ["marked", "plain"], runs, pd.DataFrame())
    assert [block.form for block in ladder_blocks(found) if block] == ["text"]
    found.ladders = [on("test"), on("test-seen"), on("val")]
    forms = [block.form for block in ladder_blocks(found) if block]
    assert forms == ["text", "text", "figures", "table", "fold"]
    found.ladders = [on("test")]
    assert [block.form for block in ladder_blocks(found) if block][-1] == "table"
