"""Figures of docs/evidence.md: panels in a grid, a row a backbone, a column a test set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from evidence_study import Study

from preceptor.report import figures as draw
from preceptor.report import svg as parts
from preceptor.report.figure_style import file_styles
from preceptor.runtime.formatting import number

DrawPanel = Callable[[Study, str, str], parts.Figure | None]


def main_panel(study: Study, backbone: str, test: str) -> parts.Figure | None:
    """A dot a seed and the mean of each line."""
    rows = [study.rows[key] for key in study.lines]
    return draw.dot_plot(replace(study.results, primary=test, rows=rows), backbone)


def levers_panel(study: Study, backbone: str, test: str) -> parts.Figure | None:
    """Variants minus Student with their intervals, in the order of the table."""
    found = {key: study.compare(backbone, key, "student", test) for key in study.variants(backbone)}
    pairs = {key.removeprefix("variant "): one[0] for key, one in found.items() if one is not None}
    if not pairs:
        return None
    bounds = np.array([[0.0, pair.mean, pair.low, pair.high] for pair in pairs.values()])
    marks = parts.ticks(float(np.nanmin(bounds)), float(np.nanmax(bounds)))
    left, right, top, step = parts.LEFT, parts.WIDTH - 18.0, 10.0, 28.0
    bottom = top + step * len(pairs)

    def x(value: float) -> float:
        return left + (value - marks[0]) * (right - left) / (marks[-1] - marks[0])

    body = []
    for mark in marks:
        label = number(mark, parts.digits(marks), sign=mark != 0)
        body.append(parts.line(x(mark), top, x(mark), bottom, "grid" if mark else "zero"))
        body.append(parts.label(x(mark), bottom + 16, label, "tick", "middle"))
    for place, (name, pair) in enumerate(pairs.items()):
        y = top + step * (place + 0.5)
        fitting = name if len(name) <= 20 else f"{name[:19]}…"  # what the margin holds
        body.append(parts.label(left - 10, y + 4, fitting, "name", "end"))
        if math.isfinite(pair.low):
            body.append(parts.line(x(pair.low), y, x(pair.high), y, "mean", "student"))
        body.append(parts.dot(x(pair.mean), y, 4.5, "student", number(pair.mean, sign=True)))
    axis = f"AUC difference on {test}"
    body.append(parts.label((left + right) / 2, bottom + 34, axis, "axis", "middle"))
    return parts.svg(bottom + 42, f"{backbone}: variants minus Student on {test}", body)


def figure(study: Study, title: str, panel: DrawPanel) -> str:
    """The panels as a file of their own, in light colors also where a page is dark."""
    body, y = [], 26.0
    for backbone in study.backbones:
        body.append(parts.label(10, y - 6, backbone, "strong").text)
        highest = 0.0
        for column, test in enumerate(study.tests):
            drawn = panel(study, backbone, test)
            if drawn is None:
                continue
            at = f'x="{column * parts.WIDTH}" y="{y:g}"'
            place = f'{at} width="{parts.WIDTH}" height="{drawn.height:g}" '
            body.append(drawn.markup(place))
            highest = max(highest, drawn.height)
        y += highest + 26
    width, height = parts.WIDTH * len(study.tests), y - 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" '
        f'width="{width}" height="{height:g}" role="img"><title>{title}</title>'
        f"<style>{file_styles()}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>\n'
    )
