"""Environment of the HTML pages: templates, typography and the colors of the stylesheet."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from preceptor.report import figure_style, palette

# Columns that hold words, or many numbers.
_WORDS = ("Remark", "Reason", "By seed")


def html_environment() -> Environment:
    """Environment of the templates in `report/templates`, with escaping."""
    environment = Environment(
        loader=PackageLoader("preceptor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    environment.globals["words"] = _WORDS
    environment.globals["styles"] = _styles()
    return environment


def typeset(text: str) -> str:
    """Typographic minus signs, and no line breaks after α and before %.

    Example:
        >>> typeset("(-0.1, best α, 95 %)") == "(−0.1, best\u00a0α, 95\u00a0%)"
        True
    """
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    text = re.sub(r"(?<=\d) %", "\u00a0%", text).replace(" − ", "\u00a0− ")
    return text.replace("α ", "α\u00a0").replace("best α", "best\u00a0α")


def _styles() -> dict[str, Markup]:
    """The parts of the stylesheet that are made from the palette, by their name in it."""
    parts = {
        "light": figure_style.variables(palette.LIGHT),
        "dark": figure_style.variables(palette.DARK),
        "ramp": ", ".join(palette.magma(8)),
        "figures": figure_style.page_styles(),
    }
    return {name: Markup(text) for name, text in parts.items()}
