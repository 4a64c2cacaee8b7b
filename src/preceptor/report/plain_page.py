"""Page with a headline and sections, in one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from preceptor.report.blocks import Section
from preceptor.report.html import html_environment
from preceptor.report.page import named_figures

Mood = Literal["", "won", "ahead", "lost"]


@dataclass(frozen=True)
class PlainPage:
    """Content of a page.

    Args:
        name: Heading.
        kind: What the page is about, in the title.
        facts: Facts below the heading.
        headline: Result in a few words.
        sentences: Result in sentences.
        mood: Color of the headline: neutral, good, warning or bad.
        sections: Sections with unique keys.
        footer: What the page was made from.
    """

    name: str
    kind: str
    facts: list[str]
    headline: str
    sentences: list[str]
    mood: Mood
    sections: list[Section]
    footer: str


def render_plain_page(page: PlainPage) -> str:
    """Page as HTML."""
    environment = html_environment()
    environment.filters["figures"] = named_figures
    return environment.get_template("plain_page.html.j2").render(page=page, links={})
