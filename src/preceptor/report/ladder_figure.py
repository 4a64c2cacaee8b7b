"""Figure of ladders: AUC without maps, with any map, the Teacher's maps and all human maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from preceptor.report.axis import Axis
from preceptor.report.cells import short
from preceptor.report.ladder_words import INSIDE, RUNGS, other_smallest, place_figures
from preceptor.report.svg import (
    LEFT,
    WIDTH,
    Figure,
    dot,
    edge,
    label,
    line,
    names,
    svg,
)
from preceptor.results.ladder import Ladder, RungName
from preceptor.runtime.text import number

SERIES: dict[RungName, str] = {
    "none": "baseline2",
    "any": "any",
    "teacher": "student",
    "human": "ceiling",
}
"""Color key of each rung."""

LEGEND = [(SERIES[name], text) for name, text in RUNGS.items()]

_STEP = 16.0  # between the rungs of a row


def ladder_plot(rows: Sequence[tuple[str, Ladder]], axis: str) -> Figure | None:
    """Ladders with 95 % intervals, one row per name, and the gain of the Teacher's maps.

    Args:
        rows: Name of each row, and its ladder.
        axis: Label of the axis.
    """
    if not rows:
        return None
    values = [
        value
        for _, ladder in rows
        for rung in ladder.rungs
        for value in (rung.mean, rung.low, rung.high)
        if math.isfinite(value)
    ]
    left, top = LEFT, 10.0
    scale = Axis(min(values), max(values), left, WIDTH - 18.0)
    heights = [_STEP * len(ladder.rungs) + 34 for _, ladder in rows]
    bottom = top + sum(heights)
    body, title = scale.drawn(top, bottom, axis)
    said, start = [], top
    for (name, ladder), height in zip(rows, heights, strict=True):
        body += names(left - 10, start + _STEP * len(ladder.rungs) / 2 + 4, name)
        at = [
            (scale.x(rung.mean), start + _STEP * (place + 0.5) + 4)
            for place, rung in enumerate(ladder.rungs)
        ]
        body.append(edge(at))
        tips = []
        for (across, y), rung in zip(at, ladder.rungs, strict=True):
            key = SERIES[rung.name]
            if math.isfinite(rung.low) and math.isfinite(rung.high):
                body.append(line(scale.x(rung.low), y, scale.x(rung.high), y, "mean", key))
            tips.append(f"{INSIDE[rung.name]} {number(rung.mean)}")
            body.append(dot(across, y, 4.5, key, f"{name}, {tips[-1]}"))
        worth = _place(ladder)
        if worth:
            tips.append(worth)
            body.append(label(left, start + _STEP * len(ladder.rungs) + 20, worth, "small"))
        said.append(f"{name}: {', '.join(tips)}")
        start += height
    body.append(title)
    return svg(bottom + 42, f"{axis} by the maps that guide. {'. '.join(said)}", body)


def _place(ladder: Ladder) -> str:
    """Gain of the Teacher's maps over any map; "" without it."""
    place = ladder.place
    if place is None or not math.isfinite(place.mean):
        return ""
    other = other_smallest(ladder)
    also = "" if other is None else f"; over {short(other.control)} {place_figures(other.paired)}"
    return f"place {place_figures(place)}{also}"
