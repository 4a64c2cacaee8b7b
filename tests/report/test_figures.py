"""Figures: one SVG for files and pages, the same bytes for the same results."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import numpy as np

from preceptor.report.figures import Curve, Figure, Mark, curves_figure, rows_figure
from preceptor.report.page import budget_plot, ladder_plot
from preceptor.report.palette import DARK, LIGHT, series_color
from tests.report.conftest import NASTY, PRIMARY, Written
from tests.report.ladders import ladder
from tests.studies import gather

SPACE = "{http://www.w3.org/2000/svg}"


def colors(svg: str) -> set[str]:
    return set(re.findall("#[0-9a-f]{6}\\b", svg))


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter(f"{SPACE}text")]


def test_the_files_of_a_report_stand_alone(two_domains: Written) -> None:
    found = sorted((two_domains.out / "figures").glob("*.svg"))
    assert len(found) >= 7
    said = ""
    for file in found:
        svg = file.read_text(encoding="utf-8")
        root = ElementTree.fromstring(svg)
        assert float(root.attrib["viewBox"].split()[2]) == 360
        for word in ("var(", "inherit", "currentColor", "@import", "script", "<metadata", "nan"):
            assert word not in svg, (file.name, word)
        assert all(link.startswith("#") for link in re.findall('href="([^"]*)"', svg))
        assert root.findtext(f"{SPACE}title")
        assert LIGHT["paper"] in svg
        assert colors(svg) <= {*LIGHT.values(), "#ffffff"}, file.name  # each has a dark one
        said += " ".join(texts(svg))
    assert f"AUC on {PRIMARY}" in said


def test_the_same_marks_give_the_same_bytes() -> None:
    def drawn() -> str:
        figure = ladder_plot([("a", ladder(0.05, 0.02))], "AUC on test")
        assert figure is not None
        return figure.svg

    assert drawn() == drawn()
    assert "20" not in re.findall("<dc:date>|Date", drawn())


def test_neither_settings_of_a_user_nor_a_name_change_how_a_figure_is_drawn() -> None:
    def drawn() -> Figure:
        curve = Curve("#c80000 $\\frac{$", "student", [0, 1], [0, 1])
        return curves_figure([curve], "#c80000", "share", "probability of $\\frac{$ 傷")

    figure = drawn()
    assert "#c80000" in figure.on_page("a")
    with matplotlib.rc_context({"text.usetex": True, "lines.markeredgecolor": "#123456"}):
        assert drawn() == figure


def test_a_figure_on_a_page_has_variables_for_its_colors() -> None:
    figure = rows_figure([(NASTY, [Mark(NASTY, "ceiling", 0.5, math.nan, math.nan)])], NASTY, NASTY)
    assert figure is not None
    page = str(figure.on_page("rungs"))
    assert not colors(page)
    assert "var(--ceiling)" in page
    assert set(re.findall('id="([a-z]*)', page)) == {"rungs"}
    assert set(re.findall('href="#([a-z]*)', page)) == {"rungs"}
    root = ElementTree.fromstring(page)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == f"{NASTY}. {NASTY}: {NASTY} 0.500"
    assert NASTY in " ".join(texts(figure.svg))  # the label of the axis, in two lines


def test_every_rung_of_a_ladder_is_drawn_and_told() -> None:
    one = ladder(0.05, 0.02, shuffled=0.03)
    figure = ladder_plot([(f"network {number}", one) for number in range(3)], "AUC")
    assert figure is not None
    told = "No maps 0.600, Any map 0.700, Teacher's maps 0.750, All human maps 0.850"
    assert figure.title.count(told) == 3
    for line in ("place +0.050 (+0.030 to +0.070)", "over Shuffled maps +0.030 (+0.010 to +0.050)"):
        assert figure.title.count(line) == 3
        for part in line.split(" ("):  # in two lines
            assert sum(part in text for text in texts(figure.svg)) == 3
    assert {"No maps", "Any map", "Teacher's maps", "All human maps"} <= set(texts(figure.svg))
    for key in ("baseline2", "any", "student", "ceiling"):
        assert series_color(key) in figure.svg
    assert ladder_plot([], "AUC") is None


def test_marks_without_a_value_are_left_out() -> None:
    nan, means = math.nan, {"a": math.nan, "b": -0.1}
    rows = [(name, [Mark("x", "student", mean, nan, nan)]) for name, mean in means.items()]
    figure = rows_figure(rows, "Title", "difference")
    assert figure is not None
    assert figure.title == "Title. b: x −0.100"
    assert rows_figure(rows[:1], "Title", "difference") is None


def test_budgets_have_their_numbers_and_minutes_as_ticks(two_domains: Written) -> None:
    plan = next(iter(two_domains.study.plans.values()))
    results, study = gather(plan), plan.protocol.study
    curve = results.budget.assign(mean=np.where(results.budget["size"] == 4, 0.6, 0.7), low=0.5)
    timed = replace(results, budget=curve.assign(minutes=curve["size"] * 3.0))
    figure = budget_plot(study, timed, "test_byobnet")
    assert figure is not None
    assert "; Student 0.600 at 4, 0.700 at 8" in figure.title
    assert {"4", "8", "12 min", "24 min", "Ceiling", "Baseline 2"} <= set(texts(figure.svg))
    empty = replace(results, budget=curve.assign(mean=np.nan))
    assert budget_plot(study, empty, "test_byobnet") is None


def test_every_name_of_the_palette_is_in_both_themes_and_on_the_page(two_domains: Written) -> None:
    assert list(LIGHT) == list(DARK)
    page = (two_domains.out / "report.html").read_text(encoding="utf-8")
    for name, color in [*LIGHT.items(), *DARK.items()]:
        assert f"--{name}: {color};" in page
