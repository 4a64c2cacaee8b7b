"""The graph of the study: groups against the plan's own steps, and a figure that can be read."""

from __future__ import annotations

import itertools
import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.report.graph_figure import Work, graph_plot, group_titles, work_groups
from preceptor.report.graph_layout import crossings, levels, links, ordered_rows, positions
from preceptor.report.svg import Figure, thinned, wrapped
from preceptor.runtime.result_folder import is_finished
from preceptor.study.plan import Plan
from tests.report.conftest import Written


@pytest.fixture(params=["finished", "not begun"])
def plan(request: pytest.FixtureRequest) -> Plan:
    name = {"finished": "two_domains", "not begun": "not_begun"}[request.param]
    written: Written = request.getfixturevalue(name)
    return written.study.first


def closure(edges: dict[str, set[str]]) -> set[tuple[str, str]]:
    """All pairs of which one comes before the other: by trying every way, step by step."""
    found = {(name, need) for name, needs in edges.items() for need in needs}
    while True:
        further = {(a, d) for a, b in found for c, d in found if b == c} - found
        if not further:
            return found
        found |= further


def test_every_step_of_the_plan_is_counted_once(plan: Plan) -> None:
    groups = work_groups(plan)
    assert len({group.title for group in groups}) == len(groups)
    assert sum(group.count for group in groups) == len(plan.steps)
    computed = [step for step in plan.steps.values() if step.kind != "select"]
    there = [step for step in computed if is_finished(plan.protocol.folder(step))]
    chosen = len(plan.steps) - len(computed) if there else 0
    assert sum(group.done for group in groups) == len(there) + chosen
    assert all(group.done <= group.count for group in groups)


def test_the_kinds_of_work_are_told_apart(two_domains: Written, not_begun: Written) -> None:
    names = {group.title: group.count for group in work_groups(two_domains.study.first)}
    assert names["Baseline 2"] == names["Teacher, data-driven"] == 3
    assert names["Shuffled maps"] == 6  # at both α of the Students
    assert names["Baseline 1"] == 3  # its other α is the human-guided Teacher
    assert names["Baseline 1 = Teacher, human-guided"] == 3
    assert names["Probe Students"] == 6
    assert names["Student, other budgets"] == 6
    # At the chosen α a Baseline 1 is the Teacher of its budget.
    assert names["Baseline 1, other budgets = Teacher, human-guided, other budgets"] == 6
    assert names["Teacher chosen"] == names["α of the Student chosen"] == 1
    before = {group.title for group in work_groups(not_begun.study.first)}
    assert before < set(names)
    assert "Test sets scored" not in before  # they are closed until the Students are chosen


def test_times_are_those_of_the_finished_steps(two_domains: Written) -> None:
    plan = two_domains.study.first
    seconds = []
    for step in plan.steps.values():
        record = plan.protocol.folder(step) / "run.json"
        if step.kind != "select":
            seconds.append(json.loads(record.read_text())["seconds"])
    groups = work_groups(plan)
    assert sum(group.seconds for group in groups) == pytest.approx(sum(seconds))
    assert sum(seconds) > 0
    assert sorted(time for group in groups for time in group.times) == sorted(seconds)
    assert [group.title for group in groups if not group.times] == [
        group.title for group in groups if group.title.endswith("chosen")
    ]


def test_needs_come_before_and_none_is_lost(plan: Plan) -> None:
    groups = work_groups(plan)
    place = {group.title: position for position, group in enumerate(groups)}
    assert all(place[need] < place[group.title] for group in groups for need in group.needs)
    drawn = closure({group.title: set(group.needs) for group in groups})
    assert not any(one == other for one, other in drawn)

    # What each step itself needs, and the selection that added it.
    named, direct = group_titles(plan), dict[str, set[str]]()
    for identity, step in plan.steps.items():
        before = {named[need] for need in (*step.needs, plan.origin[identity]) if need in named}
        direct.setdefault(named[identity], set()).update(before - {named[identity]})
    assert closure(direct) == drawn


def test_what_a_need_needs_is_not_drawn_again(plan: Plan) -> None:
    groups = work_groups(plan)
    reach = closure({group.title: set(group.needs) for group in groups})
    for group in groups:
        assert not any((one, other) in reach for one in group.needs for other in group.needs)


SPACE = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


def parts(drawing: Figure) -> tuple[tuple[float, float], list[Box], list[tuple[float, float, str]]]:
    """The size of a figure, its boxes (left, top, right, bottom) and its texts (x, y, text)."""
    root = ElementTree.fromstring(drawing.markup())
    width, height = (float(size) for size in root.attrib["viewBox"].split()[2:])
    boxes = []
    for one in root.findall("rect"):
        x, y, w, h = (float(one.attrib[name]) for name in ("x", "y", "width", "height"))
        boxes.append((x, y, x + w, y + h))
    texts = [(float(t.attrib["x"]), float(t.attrib["y"]), t.text or "") for t in root.iter("text")]
    return (width, height), boxes, texts


def assert_readable(groups: list[Work]) -> None:
    """Boxes lie in the figure and apart, texts lie in their box, no line runs behind a box."""
    drawing = graph_plot(groups)
    assert drawing is not None
    (width, height), boxes, texts = parts(drawing)
    assert len(boxes) == len(groups)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart
    for x, y, text in texts:
        half = 7.3 * len(text) / 2
        around = [
            box
            for box in boxes
            if box[0] <= x - half and x + half <= box[2] and box[1] + 9 <= y <= box[3] - 3
        ]
        assert len(around) == 1, text
    for one, other in itertools.combinations(texts, 2):
        if abs(one[1] - other[1]) < 11:
            assert abs(one[0] - other[0]) >= 7.3 * (len(one[2]) + len(other[2])) / 2
    root = ElementTree.fromstring(drawing.markup())
    tops = sorted({box[1] for box in boxes})
    for one in root.findall("line"):
        x, top, bottom = (float(one.attrib[name]) for name in ("x1", "y1", "y2"))
        assert not any(b[0] < x < b[2] and b[1] < bottom and top < b[3] for b in boxes)
    for path in root.findall("path"):
        found = [float(value) for value in re.findall(r"-?[\d.]+", path.attrib["d"])]
        start, end = found[1], found[-1]
        assert start < end
        assert not any(start < top < end - 0.05 for top in tops)  # between two levels


def test_the_figure_can_be_read(plan: Plan) -> None:
    assert_readable(work_groups(plan))


def test_no_steps_have_no_figure() -> None:
    assert graph_plot([]) is None


NAMES = st.text("abc =,_", min_size=1, max_size=60)


@st.composite
def work(draw: st.DrawFn) -> list[Work]:
    """Groups with names of any length and needs among those before."""
    count = draw(st.integers(1, 14))
    groups: list[Work] = []
    for number in range(count):
        title = f"{draw(NAMES)} {number}"
        some = draw(st.lists(st.sampled_from(groups), max_size=3)) if groups else []
        needs = list(dict.fromkeys(group.title for group in some))
        done = draw(st.integers(0, 999))
        groups.append(Work(title, draw(st.integers(done, 999)), done, [2.0] * done, needs))
    return groups


@settings(deadline=None, max_examples=60)
@given(work())
def test_any_graph_can_be_read(groups: list[Work]) -> None:
    assert_readable(groups)


def test_counts_and_times_too_long_for_a_narrow_box_take_two_lines() -> None:
    first, second = Work("= 0"), Work("= 1", needs=["= 0"])
    long = Work("= 3", 286, 285, [2.0] * 285, ["= 2"])
    others = [Work(f"= {number}", needs=["= 0"]) for number in range(4, 14)]
    groups = [first, second, Work("= 2"), long, *others]
    assert_readable(groups)


@settings(deadline=None)
@given(work(), st.integers(1, 5))
def test_levels_rows_and_positions(groups: list[Work], most: int) -> None:
    needs = {group.title: group.needs for group in groups}
    level = levels(needs, most)
    assert set(level) == set(needs)
    assert all(level[need] < level[name] for name, before in needs.items() for need in before)
    assert max(list(level.values()).count(at) for at in level.values()) <= most
    joined = links(needs, level)
    # Each connection can be followed from level to level, and leads nowhere else.
    for name, before in needs.items():
        reached = {
            place for place, at in ((one, one[1]) for one, _ in joined) if at == level[place[0]]
        }
        assert {(need, level[need]) for need in before} <= reached | set()
        heads = {one for one, other in joined if other[0] == name and one[0] != name}
        assert heads == {(need, level[need]) for need in before}
    assert all(other[1] == one[1] + 1 for one, other in joined)
    rows = ordered_rows(level, joined)
    everything = [place for row in rows for place in row]
    assert len(everything) == len(set(everything))
    assert set(everything) == set(level.items()) | {place for link in joined for place in link}
    assert all(place[1] == at for at, row in enumerate(rows) for place in row)

    first: list[list[tuple[str, int]]] = [[] for _ in rows]  # as they come
    for place in dict.fromkeys([*level.items(), *(place for link in joined for place in link)]):
        first[place[1]].append(place)
    assert crossings(rows, joined) <= crossings(first, joined)

    widths = {(name, at): 60.0 if level[name] == at else 8.0 for name, at in everything}
    wide = max(sum(widths[place] + 10 for place in row) for row in rows)
    centre = positions(rows, joined, widths, wide, 10)
    for row in rows:
        assert centre[row[0]] - widths[row[0]] / 2 >= -1e-6
        assert centre[row[-1]] + widths[row[-1]] / 2 <= wide + 1e-6
        for one, other in itertools.pairwise(row):
            between = centre[other] - centre[one] - (widths[one] + widths[other]) / 2
            assert between >= 10 - 1e-6


def test_crossings_are_counted() -> None:
    rows = [[("a", 0), ("b", 0)], [("c", 1), ("d", 1)]]
    straight = [(("a", 0), ("c", 1)), (("b", 0), ("d", 1))]
    crossed = [(("a", 0), ("d", 1)), (("b", 0), ("c", 1))]
    assert crossings(rows, straight) == 0
    assert crossings(rows, crossed) == 1
    assert crossings(ordered_rows({"a": 0, "b": 0, "c": 1, "d": 1}, crossed), crossed) == 0


@settings(deadline=None)
@given(st.text("ab _", max_size=80), st.integers(2, 20), st.integers(1, 4))
def test_wrapped_lines_fit_and_lose_nothing_but_what_they_must(
    text: str, letters: int, lines: int
) -> None:
    found = wrapped(text, letters, lines)
    assert 1 <= len(found) <= lines
    assert all(len(line) <= letters for line in found)
    whole, said = text.replace(" ", ""), "".join(found).replace(" ", "")
    if said.endswith("…"):
        assert whole.startswith(said[:-1])
        assert len(wrapped(text, letters, lines + 1)) == lines + 1
    else:
        assert said == whole


@settings(deadline=None)
@given(
    st.lists(st.text("0.−", min_size=1, max_size=6), min_size=2, max_size=8),
    st.floats(10, 60),
    st.integers(0, 7),
)
def test_labels_of_an_axis_do_not_touch(texts: list[str], gap: float, keep: int) -> None:
    keep = min(keep, len(texts) - 1)
    written = thinned(texts, gap, keep)
    assert written[keep]
    places = [place for place, told in enumerate(written) if told]
    for one, other in itertools.pairwise(places):
        assert (other - one) * gap >= 7.3 * (len(texts[one]) + len(texts[other])) / 2
    if max(map(len, texts)) * 7.3 + 6 <= gap:
        assert all(written)
