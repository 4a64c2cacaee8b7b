"""SVG figures and their elements, with colors from a stylesheet.

Figures are drawn for a phone (360 units wide) and repeated per backbone, instead of one wide figure
with small letters. The color of a series is a CSS class (`s-KEY`, see `figure_style`); lines differ
in their dashes as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from preceptor.report.figure_style import series_class

WIDTH = 360
LEFT = 136.0  # of the plot where names stand beside it
NAME = 20  # letters of a line beside the plot
LETTER = 7.3  # width of a letter at 12 units, and of a bold one at 11


@dataclass(frozen=True)
class Element:
    """Element of a figure: SVG text, and the key of its series, or ""."""

    text: str
    series: str = ""


@dataclass(frozen=True)
class Figure:
    """Figure, drawn by `svg`.

    Args:
        width, height: Size of the view box.
        title: Text alternative.
        body: Elements in the order of drawing.
    """

    width: float
    height: float
    title: str
    body: tuple[Element, ...]

    @property
    def series(self) -> frozenset[str]:
        """Keys of the drawn series."""
        return frozenset(element.series for element in self.body if element.series)

    def markup(self, attributes: str = "", head: str = "") -> Markup:
        """`svg` element.

        Args:
            attributes: Further attributes, each followed by a space.
            head: Further elements after the title.
        """
        title = escape(self.title)
        body = "".join(element.text for element in self.body)
        return Markup(
            f'<svg {attributes}viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{title}"><title>{title}</title>{head}{body}</svg>'
        )

    def __html__(self) -> Markup:
        """Figure as part of a page."""
        return self.markup()


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover [low, high] in about `count` steps.

    Example:
        >>> ticks(0.52, 0.83)
        [0.5, 0.6, 0.7, 0.8, 0.9]
    """
    span = max(high - low, 1e-3)
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)  # an axis has a length
    return [round(step * index, 10) for index in range(first, last + 1)]


def svg(height: float, title: str, body: Sequence[Element], width: float = WIDTH) -> Figure:
    """Figure with its text alternative."""
    return Figure(width, height, title, tuple(body))


def label(x: float, y: float, text: str, classes: str = "", anchor: str = "start") -> Element:
    """Text label."""
    return Element(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{classes}">'
        f"{escape(text)}</text>"
    )


def sideways(x: float, middle: float, text: str) -> Element:
    """Label of a vertical axis."""
    return Element(
        f'<text class="axis" text-anchor="middle" transform="translate({x:g} {middle:g}) '
        f'rotate(-90)">{escape(text)}</text>'
    )


def names(right: float, middle: float, text: str, classes: str = "name") -> list[Element]:
    """Name beside a plot, in one or two lines."""
    parts = wrapped(text, NAME, 2)
    top = middle + 4 - 6.5 * (len(parts) - 1)
    return [
        label(right, top + 13 * place, part, classes, "end") for place, part in enumerate(parts)
    ]


def wrapped(text: str, letters: int, lines: int) -> list[str]:
    """Text in lines with a maximum number of letters; the rest is replaced by an ellipsis.

    Example:
        >>> wrapped("Teacher, human-guided", 15, 2), wrapped("mobilenetv3_large", 10, 2)
        (['Teacher,', 'human-guided'], ['mobilenetv', '3_large'])
        >>> wrapped("one two three", 5, 2)
        ['one', 'two …']
    """
    found = [""]
    for word in text.split():
        joined = f"{found[-1]} {word}".strip()
        if len(joined) <= letters:
            found[-1] = joined
            continue
        parts = [word[place : place + letters] for place in range(0, len(word), letters)]
        found += parts if found[-1] else []
        found = found if found[-1] else parts
    if len(found) <= lines:
        return found
    last = found[lines - 1]
    last = f"{last} …" if len(last) + 2 <= letters else f"{last[: letters - 1].rstrip()}…"
    return [*found[: lines - 1], last]


def thinned(texts: Sequence[str], gap: float, keep: int = 0) -> list[bool]:
    """Subset of the labels of an axis without overlaps.

    Args:
        texts: All labels, in order.
        gap: Distance between two labels.
        keep: Index of a label that is always included.

    Example:
        >>> thinned(["−0.02", "0.00", "+0.02", "+0.04"], 41.0, 1)
        [False, True, False, True]
    """
    need = LETTER * max(map(len, texts)) + 6
    step = max(1, math.ceil(need / gap - 1e-9))
    return [(place - keep) % step == 0 for place in range(len(texts))]


def line(x1: float, y1: float, x2: float, y2: float, classes: str, series: str = "") -> Element:
    """Straight line."""
    return Element(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'class="{_joined(classes, series)}"/>',
        series,
    )


def dot(x: float, y: float, radius: float, series: str, title: str) -> Element:
    """Disc with a tool tip."""
    return Element(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{_joined("dot", series)}">'
        f"<title>{escape(title)}</title></circle>",
        series,
    )


def ring(x: float, y: float, radius: float, series: str) -> Element:
    """Circle around a dot."""
    return Element(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{_joined("ring", series)}"/>',
        series,
    )


def path(points: Sequence[tuple[float, float]], series: str) -> Element:
    """Curve of a series through points."""
    return Element(f'<path d="M{_through(points)}" class="{_joined("curve", series)}"/>', series)


def edge(points: Sequence[tuple[float, float]]) -> Element:
    """Thin line through points that belongs to no series."""
    return Element(f'<path d="M{_through(points)}" class="edge"/>')


def area(
    upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], series: str
) -> Element:
    """Band of a series between two lines."""
    around = [*upper, *reversed(lower)]
    return Element(f'<path d="M{_through(around)}Z" class="{_joined("band", series)}"/>', series)


def _through(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _joined(classes: str, series: str) -> str:
    """Value of a class attribute."""
    return f"{classes} {series_class(series)}" if series else classes


def digits(values: Sequence[float]) -> int:
    """Number of decimals that distinguishes tick labels."""
    return next((d for d in (1, 2, 3) if all(abs(v - round(v, d)) < 1e-9 for v in values)), 4)
