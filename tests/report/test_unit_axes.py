"""Axes of two shares."""

from __future__ import annotations

import re

from preceptor.report.svg import WIDTH, svg
from preceptor.report.unit_axes import UnitAxes


def test_the_grid_spans_both_axes_and_stays_within_the_figure() -> None:
    axes = UnitAxes(46.0, 310.0)
    drawn = str(svg(axes.height, "title", [*axes.grid(), axes.diagonal(), *axes.titles("a", "b")]))
    lines = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)
    assert len(lines) == 11
    (left, bottom), (right, top) = axes.at(0, 0), axes.at(1, 1)
    assert (left, bottom, right, top) == (46.0, 310.0, WIDTH - 14.0, 10.0)
    for one in lines:
        x1, y1, x2, y2 = map(float, one)
        assert left <= x1 <= x2 <= right
        assert top <= min(y1, y2) <= max(y1, y2) <= bottom
    assert [drawn.count(f">{told}<") for told in ("0", "0.25", "0.5", "0.75", "1")] == [2] * 5
    assert drawn.count(">a<") == drawn.count(">b<") == 1
