"""Figure of curves by number of annotated images, with bands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from preceptor.report.svg import (
    LETTER,
    WIDTH,
    Element,
    Figure,
    area,
    digits,
    dot,
    label,
    line,
    path,
    sideways,
    svg,
    ticks,
)
from preceptor.results.rows import records
from preceptor.runtime.text import number


@dataclass(frozen=True)
class Curve:
    """Name and color of a curve.

    Args:
        name: Name in the description and the tips.
        key: Key of its color, as in the legend.
    """

    name: str
    key: str


def curves_by_size(
    table: pd.DataFrame,
    curves: Mapping[str, Curve],
    title: str,
    axis: str,
    across: Mapping[str, float] | None = None,
    mark: int | None = None,
) -> Figure | None:
    """Curves by number of annotated images on a logarithmic axis, with bands.

    Args:
        table: A row a curve and number: line (of `curves`), size, mean, low, high, n, minutes (of
            annotation; NaN if unknown).
        curves: Curves by line, in the order in which they are drawn.
        title: What is drawn.
        axis: Title of the vertical axis.
        across: Values that do not depend on the number, drawn as horizontal lines, by color key.
        mark: Number with a vertical line, beyond which more are not needed; None = none.

    Returns:
        The figure; None without a mean.
    """
    curve, across = table[table["mean"].notna()], across or {}
    if curve.empty:
        return None
    values = [*curve["mean"], *curve["low"].dropna(), *curve["high"].dropna(), *across.values()]
    lowest, highest = max(min(values), -1.0), min(max(values), 1.0)  # of an AUC and of r
    scale = ticks(lowest, highest)
    sizes = sorted(int(size) for size in curve["size"].unique())
    left, right, top, bottom = 58.0, WIDTH - 20.0, 24.0, 220.0
    first, span = math.log(sizes[0]), math.log(sizes[-1] / sizes[0]) or 1.0

    def x(size: float) -> float:
        return left + 16 + (math.log(size) - first) / span * (right - left - 32)

    def y(value: float) -> float:
        share = (min(max(value, scale[0]), scale[-1]) - scale[0]) / (scale[-1] - scale[0])
        return bottom - share * (bottom - top)

    body: list[Element] = []
    for value in scale:
        body.append(line(left, y(value), right, y(value), "grid"))
        body.append(label(left - 7, y(value) + 4, number(value, digits(scale)), "tick", "end"))
    minutes = curve.drop_duplicates("size").set_index("size")["minutes"]
    free = 0.0  # smallest position at which a label does not touch the previous one
    for size in sizes:
        texts = [f"{size:,}"]
        if math.isfinite(minutes[size]):
            texts.append(f"{minutes[size]:,.0f} min")
        half = LETTER * max(map(len, texts)) / 2
        if x(size) - half < free:
            continue
        free = x(size) + half + 6
        for place, text in enumerate(texts):
            body.append(label(x(size), bottom + 17 + 15 * place, text, "tick", "middle"))
    if mark is not None:
        body.append(line(x(mark), top, x(mark), bottom, "chance"))
        anchor = "start" if x(mark) + 60 < WIDTH else "end"  # the word is 53 wide
        body.append(label(x(mark), top - 8, "enough", "axis", anchor))
    for key, value in across.items():
        body.append(line(left, y(value), right, y(value), "curve across", key))
    said = []
    for name, shown in curves.items():
        mine = records(curve[curve["line"] == name].sort_values("size"))
        if not mine:
            continue
        key = shown.key
        known = [row for row in mine if math.isfinite(row["low"])]
        upper, lower = (
            [(x(row["size"]), y(row[side])) for row in known] for side in ("high", "low")
        )
        body += [area(upper, lower, key)] if len(known) > 1 else []
        body.append(path([(x(row["size"]), y(row["mean"])) for row in mine], key))
        for row in mine:
            body.append(dot(x(row["size"]), y(row["mean"]), 4, key, _tip(shown.name, row)))
        said.append(
            f"{shown.name} "
            + ", ".join(f"{number(row['mean'])} at {row['size']:,}" for row in mine)
        )
    timed = minutes.notna().any()
    under = "annotated images (log scale)" + (", minutes of annotation" if timed else "")
    deep = bottom + (50 if timed else 36)
    body.append(label((left + right) / 2, deep, under, "axis", "middle"))
    body.append(sideways(11, (top + bottom) / 2, axis))
    return svg(deep + 8, f"{title}: {'; '.join(said)}", body)


def _tip(name: str, row: dict[str, Any]) -> str:
    spread = f" ({number(row['low'])} to {number(row['high'])})" if row["n"] > 1 else ""
    return f"{name}, {row['size']:,} annotated: {number(row['mean'])}{spread}"
