"""Reliability diagram: observed frequencies by mean score."""

from __future__ import annotations

from collections.abc import Mapping

from preceptor.evaluation.reliability import Bins
from preceptor.report.svg import (
    WIDTH,
    Element,
    Figure,
    dot,
    label,
    line,
    path,
    sideways,
    svg,
)
from preceptor.runtime.formatting import number


def reliability_plot(
    curves: Mapping[str, tuple[str, Bins]],
    title: str,
    across: str = "mean score",
    up: str = "share of hits",
) -> Figure:
    """Reliability diagram; a calibrated model is on the diagonal.

    Args:
        curves: Name and bins of each curve, by the key of its color.
        title: Text alternative, which the largest gaps are appended to.
        across, up: Labels of the axes.
    """
    left, right, top, bottom = 54.0, WIDTH - 14.0, 10.0, 310.0

    def at(score: float, share: float) -> tuple[float, float]:
        return left + score * (right - left), bottom - share * (bottom - top)

    body: list[Element] = []
    for mark in (0, 0.25, 0.5, 0.75, 1):
        (x, y), told = at(mark, mark), f"{mark:g}"
        body += [line(x, top, x, bottom, "grid"), line(left, y, right, y, "grid")]
        body.append(label(x, bottom + 16, told, "tick", "middle"))
        body.append(label(left - 7, y + 4, told, "tick", "end"))
    body.append(line(*at(0, 0), *at(1, 1), "chance"))
    said = []
    for key, (name, bins) in curves.items():
        values = list(zip(bins.scores.tolist(), bins.shares.tolist(), bins.counts, strict=True))
        if len(values) > 1:
            body.append(path([at(score, share) for score, share, _ in values], key))
        for score, share, count in values:
            tip = f"{name}: {number(share)} at a mean score of {number(score)}, {count:,.0f} images"
            body.append(dot(*at(score, share), 4, key, tip))
        gap = max((share - score for score, share, _ in values), key=abs)
        said.append(f"{name} {number(gap, sign=True)}")
    body.append(label((left + right) / 2, bottom + 35, across, "axis", "middle"))
    body.append(sideways(11, (top + bottom) / 2, up))
    return svg(bottom + 43, f"{title}. Largest gap: {', '.join(said)}", body)
