"""Histograms of several groups of values over one axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from preceptor.report.axis import Axis
from preceptor.report.svg import WIDTH, Element, Figure, area, label, line, path, svg
from preceptor.runtime.text import number

BINS = 24


def histogram(
    groups: Mapping[str, tuple[str, NDArray[np.float64]]],
    title: str,
    axis: str,
    *,
    span: tuple[float, float] | None = None,
    mark: tuple[str, float] | None = None,
) -> Figure | None:
    """Share of the values of each group in bins of equal width.

    Args:
        groups: Name and values of each group, by the key of its color; NaN is left out.
        title: Text alternative, which the means are appended to.
        axis: Label of the axis.
        span: Ends of the bins; None = the range of the values.
        mark: Name and value of a vertical line, in addition.

    Returns:
        Figure; None without values.
    """
    values = {key: one[np.isfinite(one)] for key, (_, one) in groups.items()}
    values = {key: one for key, one in values.items() if len(one)}
    if not values:
        return None
    every = np.concatenate([*values.values(), [mark[1]] if mark else []])
    low, high = span or (float(every.min()), float(every.max()))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    left, right, top, bottom = 20.0, WIDTH - 14.0, 24.0, 150.0
    scale = Axis(edges[0], edges[-1], left, right)
    shares = {
        key: np.histogram(one.clip(low, high), edges)[0] / len(one) for key, one in values.items()
    }
    highest = max(float(one.max()) for one in shares.values())
    body, words = scale.drawn(top, bottom, axis)
    said = []
    for key, heights in shares.items():
        points = [(left, bottom)]
        for place, height in enumerate(heights.tolist()):
            y = bottom - height / highest * (bottom - top)
            points += [(scale.x(edges[place]), y), (scale.x(edges[place + 1]), y)]
        outline = [(scale.x(edges[0]), bottom), *points[1:], (scale.x(edges[-1]), bottom)]
        body += [area(outline, [(outline[-1][0], bottom), (outline[0][0], bottom)], key)]
        body.append(path(outline, key))
        said.append(f"{groups[key][0]} {number(values[key].mean())}")
    if mark is not None:
        body += _mark(scale.x(float(np.clip(mark[1], low, high))), top, bottom, *mark)
        said.append(f"{mark[0]} {number(mark[1])}")
    body.append(words)
    return svg(bottom + 42, f"{title}. Means: {', '.join(said)}", body)


def _mark(x: float, top: float, bottom: float, name: str, value: float) -> list[Element]:
    """Vertical line with its name above."""
    anchor = "start" if x < WIDTH / 3 else "end" if x > WIDTH * 2 / 3 else "middle"
    text = label(x, top - 9, f"{name} {number(value)}", "strong", anchor)
    return [line(x, top - 4, x, bottom, "zero"), text]
