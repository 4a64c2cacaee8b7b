"""Styles of figures: one list of rules, converted to CSS for the page and for figure files.

On the page, colors are CSS variables, so that they follow a dark theme. Drawing programs do not
support variables: files contain literal colors, and rules with the color of a series are repeated
for each series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from preceptor.report.palette import LIGHT, SERIES


@dataclass(frozen=True)
class Color:
    """Color, by its name in the palette."""

    name: str


class OwnColor:
    """Color of the series of an element."""


Value = str | Color | OwnColor
_OWN = OwnColor()


@dataclass(frozen=True)
class Rule:
    """Rule of a stylesheet.

    Args:
        selectors: CSS selectors, each an element or a class.
        style: Properties and their values.
    """

    selectors: tuple[str, ...]
    style: dict[str, Value]

    def body(self, color: Callable[[Color | OwnColor], str]) -> str:
        """The declarations, with colors as the function writes them."""
        return " ".join(
            f"{name}: {value if isinstance(value, str) else color(value)};"
            for name, value in self.style.items()
        )


RULES = (
    Rule(("text",), {"font-size": "12px", "fill": Color("ink")}),
    Rule((".tick", ".axis"), {"fill": Color("soft")}),
    Rule((".strong",), {"font-weight": "700"}),
    Rule((".grid",), {"stroke": Color("rule")}),
    Rule((".rule",), {"stroke": Color("rule"), "stroke-dasharray": "1 4"}),
    Rule((".zero",), {"stroke": Color("ink")}),
    Rule((".chance",), {"stroke": Color("soft"), "stroke-dasharray": "2 5"}),
    Rule(
        (".curve",),
        {"fill": "none", "stroke": _OWN, "stroke-width": "2", "stroke-linejoin": "round"},
    ),
    Rule(
        (".dot",),
        {"fill": _OWN, "fill-opacity": "0.85", "stroke": Color("paper"), "stroke-width": "1"},
    ),
    Rule((".mean",), {"stroke": _OWN, "stroke-width": "3"}),
    Rule((".ring",), {"fill": "none", "stroke": _OWN, "stroke-width": "2"}),
    Rule((".band",), {"fill": _OWN, "fill-opacity": "0.16"}),
    Rule((".curve.across",), {"stroke-width": "1.5"}),
    Rule((".edge",), {"fill": "none", "stroke": Color("soft"), "stroke-width": "1.2"}),
    Rule((".box",), {"fill": Color("raised"), "stroke": Color("soft")}),
    Rule((".part",), {"stroke-dasharray": "4 3"}),
    Rule((".small",), {"font-size": "11px"}),
    Rule((".curve.s-student",), {"stroke-width": "3"}),
    Rule((".curve.s-baseline1",), {"stroke-dasharray": "8 4"}),
    Rule((".curve.s-baseline2",), {"stroke-dasharray": "2 3"}),
    Rule((".curve.s-ceiling",), {"stroke-dasharray": "9 3 2 3"}),
)


def series_class(key: str) -> str:
    """CSS class of a series."""
    return f"s-{key}"


def page_styles(rules: Sequence[Rule] = RULES) -> str:
    """Rules for figures on the page; a series sets the variable of its color."""

    def variable(value: Color | OwnColor) -> str:
        return f"var(--{value.name if isinstance(value, Color) else 'c'})"

    lines = [
        f"{', '.join(f'svg {one}' for one in rule.selectors)} {{ {rule.body(variable)} }}"
        for rule in rules
    ]
    lines += [f".{series_class(key)} {{ --c: var(--{name}); }}" for key, name in SERIES.items()]
    return "\n".join(lines)


@cache
def file_styles(rules: tuple[Rule, ...] = RULES) -> str:
    """Rules for figures in separate files, in light colors."""
    found = ["text{font-family:Helvetica,Arial,sans-serif}"]
    for rule in rules:
        own = any(isinstance(value, OwnColor) for value in rule.style.values())
        for selector in rule.selectors:
            for key, name in SERIES.items() if own else [("", "")]:
                suffix = f".{series_class(key)}" if own else ""
                found.append(f"{selector}{suffix}{{{rule.body(_written_out(name))}}}")
    return "".join(found)


def _written_out(own: str) -> Callable[[Color | OwnColor], str]:
    return lambda value: LIGHT[value.name if isinstance(value, Color) else own]


def variables(colors: dict[str, str]) -> str:
    """Colors as CSS variables."""
    return " ".join(f"--{name}: {value};" for name, value in colors.items())
