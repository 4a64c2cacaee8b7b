"""Parts of inline SVG figures that take their colours from the page's stylesheet.

Figures are drawn for a phone (360 units wide) and repeated per backbone, instead of one wide figure
whose letters shrink. Colours are CSS classes (`s-KEY`); lines differ in dash as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 360
LEFT = 136.0  # of the plot where names stand beside it


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


def svg(height: float, title: str, body: Sequence[str], width: float = WIDTH) -> Markup:
    """A figure with its description."""
    named = escape(title)
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{named}">'
        f"<title>{named}</title>{''.join(body)}</svg>"
    )


def label(x: float, y: float, text: str, classes: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{classes}">'
        f"{escape(text)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def dot(x: float, y: float, radius: float, classes: str, title: str) -> str:
    """A disc with a tip."""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{classes}">'
        f"<title>{escape(title)}</title></circle>"
    )


def path(points: Sequence[tuple[float, float]], classes: str) -> str:
    """A line through points."""
    return f'<path d="M{"L".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{classes}"/>'


def area(
    upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], classes: str
) -> str:
    """The band between two lines."""
    around = [*upper, *reversed(lower)]
    return f'<path d="M{"L".join(f"{x:.1f},{y:.1f}" for x, y in around)}Z" class="{classes}"/>'


def digits(values: Sequence[float]) -> int:
    """Decimals that tell tick labels apart."""
    return next((d for d in (1, 2, 3) if all(abs(v - round(v, d)) < 1e-9 for v in values)), 4)
