"""Figures of reports: SVG by matplotlib, the same bytes for the same results.

A figure is drawn for a phone and repeated for each backbone, instead of one wide figure with small
letters. Its files have light colors; on a page the colors are CSS variables, so that they follow a
dark theme. Lines differ in their dashes as well.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import matplotlib.figure
import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from preceptor.report.palette import LIGHT, series_color
from preceptor.utils.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 360
_NAME = 20  # letters of a line beside the plot
_LABEL = 34  # letters of a line below it
_STYLE = Path(__file__).with_name("figures.mplstyle")
_VARIABLES = {color: name for name, color in LIGHT.items()} | {"#ffffff": "paper"}
_DASHES = {"baseline1": (0, (4, 2)), "baseline2": (0, (1, 1.5)), "ceiling": (0, (4.5, 1.5, 1, 1.5))}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Figure:
    """SVG figure."""

    title: str  # text alternative
    svg: str  # file in light colors, with a background and the title

    def on_page(self, name: str) -> Markup:
        """Figure as part of a page, with the variables of its colors; `name` is unique there."""
        # Colors follow a colon; a name of a class may look like one.
        body = re.sub("(?<=: )#[0-9a-f]{6}", lambda one: f"var(--{_VARIABLES[one[0]]})", self.svg)
        body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", body)
        label = f'<svg role="img" aria-label="{escape(self.title)}"'
        return Markup(body.replace("<svg", label, 1))


@dataclass(frozen=True)
class Mark:
    """Mark of a row: a value with its 95 % interval, NaN where there is none."""

    name: str
    key: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Curve with a band."""

    name: str  # name in the legend, and key of its color
    key: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None  # ends of a band; None = no band
    high: ArrayLike | None = None
    dots: bool = False  # whether points have dots


def _drawn(title: str, height: float, draw: Callable[[matplotlib.figure.Figure], None]) -> Figure:
    """Figure with the style of all figures."""
    # Settings of the user are left out, so that figures are the same everywhere.
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the letters
        figure = matplotlib.figure.Figure(figsize=(WIDTH / 72, height / 72))
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={**_NO_METADATA, "Title": title})
    text = re.sub(r" *<metadata>.*?</metadata>\n", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # several figures share a page
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    start, end = text.index("<defs>"), text.index("</defs>")  # the styles come first
    text = text[:start] + text[end + len("</defs>") :]
    return Figure(title, re.sub(r"\s*\n\s*", "\n", text[text.index("<svg") :]))


def _axes(
    figure: matplotlib.figure.Figure, height: float, left: float, below: float, top: float = 10
) -> Axes:
    """Axes with margins in units of the figure."""
    box = (left / WIDTH, below / height, 1 - (left + 14) / WIDTH, 1 - (below + top) / height)
    return figure.add_axes(box)


def _legend(figure: matplotlib.figure.Figure, axes: Axes, entries: Mapping[str, Any]) -> None:
    """Draw a legend at the lower edge."""
    figure.legend(
        list(entries.values()), list(entries), loc="lower left", ncols=2, columnspacing=1.2,
        bbox_to_anchor=(8 / WIDTH, 0), alignment="left",
    )  # fmt: skip


def _legend_height(names: Sequence[str]) -> float:
    return 17 * math.ceil(len(names) / 2) + 8 if len(names) > 1 else 0


def _line(key: str) -> dict[str, Any]:
    wide = 3 if key == "student" else 2
    return {"color": series_color(key), "linestyle": _DASHES.get(key, "-"), "linewidth": wide}


def rows_figure(
    rows: Sequence[tuple[str, Sequence[Mark]]],
    title: str,
    axis: str,
    *,
    joined: bool = False,
    notes: Sequence[str] = (),
) -> Figure | None:
    """Marks over one horizontal axis, one row a name."""
    drawn = [(name, [one for one in marks if math.isfinite(one.mean)]) for name, marks in rows]
    drawn = [(name, marks) for name, marks in drawn if marks]
    if not drawn:
        return None
    step = 14.0 if any(notes) or joined else 13.0
    lines = max((note.count("\n") + 1 for note in notes if note), default=0)
    heights = [step * (len(marks) - 1) + 28 + 14 * lines for _, marks in drawn]
    legend = {one.name: one.key for _, marks in drawn if len(marks) > 1 for one in marks}
    label = wrap(axis, _LABEL)
    below = 27 + 13 * len(label) + _legend_height([*legend])
    height = sum(heights) + below + 10

    def draw(figure: matplotlib.figure.Figure) -> None:
        axes = _axes(figure, height, 136, below)
        axes.set_ylim(sum(heights), 0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        start, places, handles = 0.0, [], {}
        for place, ((_, marks), own) in enumerate(zip(drawn, heights, strict=True)):
            first = start + 14
            at = [first + step * number for number in range(len(marks))]
            places.append((at[0] + at[-1]) / 2)
            if joined:
                axes.plot([one.mean for one in marks], at, color=LIGHT["soft"], linewidth=1)
            for y, mark in zip(at, marks, strict=True):
                color = series_color(mark.key)
                if math.isfinite(mark.low) and math.isfinite(mark.high):
                    axes.plot([mark.low, mark.high], [y, y], color=color, linewidth=3)
                (handles[mark.name],) = axes.plot(
                    mark.mean, y, "o", color=color,
                    markeredgecolor=LIGHT["paper"], markeredgewidth=0.8,
                )  # fmt: skip
            if place < len(notes) and notes[place]:
                axes.annotate(
                    notes[place], (8 / WIDTH, at[-1] + 8), va="top", annotation_clip=False,
                    xycoords=("figure fraction", "data"), fontsize=10, fontweight="bold",
                )  # fmt: skip
            start += own
        axes.set_yticks(places, [_beside(name) for name, _ in drawn])
        axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlabel("\n".join(label))
        if legend:
            _legend(figure, axes, {name: handles[name] for name in legend})

    said = "; ".join(
        f"{name}: {', '.join(f'{one.name} {number(one.mean)}' for one in marks)}"
        for name, marks in drawn
    )
    noted = ". ".join(note.replace("\n(", " (").replace("\n", "; ") for note in notes if note)
    return _drawn(f"{title}. {said}{f'. {noted}' if noted else ''}", height, draw)


def _beside(name: str) -> str:
    """Name beside a plot, in one or two lines."""
    lines = wrap(name, _NAME, break_on_hyphens=False)[:3]
    return "\n".join(lines[:2]) if len(lines) < 3 else f"{lines[0]}\n{lines[1][: _NAME - 1]}…"


def curves_figure(
    curves: Sequence[Curve],
    title: str,
    across: str,
    up: str,
    *,
    unit: tuple[bool, bool] = (False, False),
    diagonal: bool = False,
    levels: Mapping[str, tuple[str, float]] | None = None,
    ticks: Mapping[float, str] | None = None,
    mark: tuple[str, float] | None = None,
    height: float = 230,
) -> Figure:
    """Curves over two axes; with ticks, the horizontal one is logarithmic."""
    named = dict.fromkeys([*(one.name for one in curves), *(levels or {})])
    lines = max((text.count("\n") for text in (ticks or {}).values()), default=0)
    below = 40 + 13 * lines + _legend_height([*named])
    whole = height + below

    def draw(figure: matplotlib.figure.Figure) -> None:
        axes, handles = _axes(figure, whole, 54, below, 22 if mark else 10), {}
        if diagonal:
            axes.plot([0, 1], [0, 1], color=LIGHT["soft"], linestyle=(0, (1, 2)), linewidth=1)
        for name, (key, value) in (levels or {}).items():
            handles[name] = axes.axhline(value, **_line(key) | {"linewidth": 1.5})
        for one in curves:
            x, y = np.asarray(one.x, float), np.asarray(one.y, float)
            if one.low is not None and one.high is not None:
                color = series_color(one.key)
                axes.fill_between(x, one.low, one.high, color=color, alpha=0.16, linewidth=0)
            (handles[one.name],) = axes.plot(x, y, marker="o" if one.dots else "", **_line(one.key))
        if unit[0]:
            axes.set_xlim(0, 1)
        if unit[1]:
            axes.set_ylim(0, 1)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if ticks is not None:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks([*ticks], [*ticks.values()])
        if mark is not None:
            _vertical(axes, *mark)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        if len(named) > 1:
            _legend(figure, axes, {name: handles[name] for name in named})

    return _drawn(title, whole, draw)


def _vertical(axes: Axes, name: str, at: float) -> None:
    axes.axvline(at, color=LIGHT["soft"], linestyle=(0, (1, 2)), linewidth=1.5)
    low, high = axes.get_xlim()
    side = "left" if at < low + (high - low) / 3 else "right"
    axes.annotate(
        name, (at, 1), xycoords=("data", "axes fraction"), xytext=(0, 4),
        textcoords="offset points", ha=side, color=LIGHT["soft"],
    )  # fmt: skip
