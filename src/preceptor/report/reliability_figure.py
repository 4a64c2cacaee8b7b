"""Reliability diagram: observed frequencies by mean score."""

from __future__ import annotations

from collections.abc import Mapping

from preceptor.evaluation.reliability import Bins
from preceptor.report.svg import Figure, dot, path, svg
from preceptor.report.unit_axes import UnitAxes
from preceptor.runtime.text import number


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
    axes = UnitAxes(54.0, 310.0)
    body = [*axes.grid(), axes.diagonal()]
    said = []
    for key, (name, bins) in curves.items():
        values = list(zip(bins.scores.tolist(), bins.shares.tolist(), bins.counts, strict=True))
        if len(values) > 1:
            body.append(path([axes.at(score, share) for score, share, _ in values], key))
        for score, share, count in values:
            tip = f"{name}: {number(share)} at a mean score of {number(score)}, {count:,.0f} images"
            body.append(dot(*axes.at(score, share), 4, key, tip))
        gap = max((share - score for score, share, _ in values), key=abs)
        said.append(f"{name} {number(gap, sign=True)}")
    body += axes.titles(across, up)
    return svg(axes.height, f"{title}. Largest gap: {', '.join(said)}", body)
