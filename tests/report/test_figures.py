"""Figures: one SVG for files and pages, the same bytes for the same results."""

from __future__ import annotations

import math
import re
from dataclasses import astuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from preceptor.report.figures import (
    Mark,
    curves_by_size,
    histogram,
    rows_figure,
)
from preceptor.report.palette import LIGHT, series_color
from preceptor.report.plots import ladder_plot, reliability_of_seeds
from tests.report.conftest import NASTY, PRIMARY, Written
from tests.report.ladders import ladder

SPACE = "{http://www.w3.org/2000/svg}"


def colors(svg: str) -> set[str]:
    return set(re.findall("#[0-9a-f]{6}\\b", svg))


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter(f"{SPACE}text")]


def test_the_files_of_a_report_stand_alone(two_domains: Written) -> None:
    found = sorted((two_domains.out / "figures").glob("*.svg"))
    assert len(found) >= 19
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


def test_a_figure_on_a_page_has_variables_for_its_colors() -> None:
    figure = rows_figure([(NASTY, [Mark(NASTY, "ceiling", 0.5)])], NASTY, NASTY)
    assert figure is not None
    page = str(figure.on_page("rungs"))
    assert not colors(page)
    assert "var(--ceiling)" in page
    assert set(re.findall('id="([a-z]*)', page)) == {"rungs"}
    assert set(re.findall('href="#([a-z]*)', page)) == {"rungs"}
    root = ElementTree.fromstring(page)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == f"{NASTY}. {NASTY}: {NASTY} 0.500"
    assert NASTY in texts(figure.svg)  # the label of the axis


def test_every_rung_of_a_ladder_is_drawn_and_told() -> None:
    figure = ladder_plot([(f"network {number}", ladder(0.05, 0.02)) for number in range(3)], "AUC")
    assert figure is not None
    told = "No maps 0.600, Any map 0.700, Teacher's maps 0.750, All human maps 0.850"
    assert figure.title.count(told) == 3
    assert texts(figure.svg).count("place +0.050 (+0.030 to +0.070)") == 3
    assert {"No maps", "Any map", "Teacher's maps", "All human maps"} <= set(texts(figure.svg))
    for key in ("baseline2", "any", "student", "ceiling"):
        assert series_color(key) in figure.svg
    assert ladder_plot([], "AUC") is None


def test_marks_without_a_value_are_left_out() -> None:
    rows = [("a", [Mark("x", "student", math.nan)]), ("b", [Mark("x", "student", -0.1)])]
    figure = rows_figure(rows, "Title", "difference", signed=True)
    assert figure is not None
    assert figure.title == "Title. b: x −0.100"
    assert rows_figure(rows[:1], "Title", "difference") is None


def test_budgets_have_their_numbers_and_minutes_as_ticks() -> None:
    sizes = [20, 60, 600]
    table = pd.DataFrame(
        {
            "line": "student",
            "size": sizes,
            "mean": [0.6, 0.7, 0.9],
            "low": [0.5, 0.6, 0.85],
            "high": [0.7, 0.8, 1.2],
            "minutes": [4.0, 12.0, 120.0],
        }
    )
    curves = {"student": ("Student", "student"), "mapper": ("Mapper", "mapper")}
    levels = {"Ceiling": ("ceiling", 0.95)}
    figure = curves_by_size(table, curves, "Title", "AUC", levels, enough=60)
    assert figure is not None
    assert figure.title == "Title: Student 0.600 at 20, 0.700 at 60, 0.900 at 600"
    shown = texts(figure.svg)
    assert {"20", "60", "600", "4 min", "12 min", "120 min", "enough", "Ceiling"} <= set(shown)
    assert curves_by_size(table.assign(mean=np.nan), curves, "Title", "AUC") is None


def test_a_histogram_tells_means_and_the_mark() -> None:
    groups = {
        "baseline1": ("real", np.array([0.1, 0.2, np.nan])),
        "student": ("fake", np.array([0.8, 0.9])),
        "ceiling": ("none", np.array([np.nan])),
    }
    figure = histogram(groups, "Scores", "score", span=(0, 1), mark=("image", 0.7))
    assert figure is not None
    assert figure.title == "Scores. Means: real 0.150, fake 0.850, image 0.700"
    assert {"real", "fake", "image 0.700"} <= set(texts(figure.svg))
    assert histogram({"student": ("a", np.array([np.nan]))}, "Scores", "score") is None


CLASSES = ("real", "fake")


def _calibrated(seed: int, images: int = 400) -> pd.DataFrame:
    """Scores of a calibrated model on images of their own."""
    random = np.random.default_rng(seed)
    score = random.uniform(size=images)
    labels = np.where(random.uniform(size=images) < score, "fake", "real")
    return pd.DataFrame(
        {
            "path": [f"{seed}/{index}.png" for index in range(images)],
            "label": labels,
            "split": "test",
            "source": "",
            "group": "",
            "score_real": 1 - score,
            "score_fake": score,
        }
    )


@pytest.mark.parametrize("positive", ["fake", None])
def test_seeds_of_their_own_images_keep_their_own_labels(positive: str | None) -> None:
    parts = [_calibrated(seed, 400 + 10 * seed) for seed in range(5)]
    error, bins = reliability_of_seeds(parts, CLASSES, positive, draws=True)
    assert error.value < 0.05  # labels of another draw give 0.2
    assert error.low == 0
    assert bins.counts.sum() == sum(map(len, parts))


def test_images_of_several_seeds_are_resampled_together() -> None:
    part = _calibrated(0, 100)
    once, _ = reliability_of_seeds([part], CLASSES, "fake", draws=False)
    together, _ = reliability_of_seeds([part] * 4, CLASSES, "fake", draws=False)
    apart, _ = reliability_of_seeds([part] * 4, CLASSES, "fake", draws=True)
    assert astuple(together) == pytest.approx(astuple(once))
    # Four times as many independent images: less of the error is noise.
    assert apart.expected == pytest.approx(once.expected / 2, rel=0.1)
