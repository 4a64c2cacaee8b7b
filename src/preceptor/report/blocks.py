"""Structure of a page and its HTML: chapters, sections and blocks, with their files."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from preceptor.report.cells import Table, slugs
from preceptor.report.figures import Figure
from preceptor.report.palette import DARK, LIGHT, magma
from preceptor.report.panels import Panels

# Columns that hold words, or many numbers.
_WORDS = ("Remark", "Reason", "By seed")
_KINDS = {
    "csv": ("CSV", "text/csv"),
    "tex": ("LaTeX", "text/plain"),
    "svg": ("SVG", "image/svg+xml"),
}


@dataclass(frozen=True)
class Text:
    """Paragraph: plain text, an answer, a note on missing results ("none"), or a heading."""

    form: ClassVar[str] = "text"
    text: str
    kind: str = "plain"


@dataclass(frozen=True)
class TableBlock:
    """Table block, with the name of its files."""

    form: ClassVar[str] = "table"
    name: str
    table: Table

    @property
    def stems(self) -> list[str]:
        """Names of its files, without the section's key and the suffix."""
        return [self.name]


@dataclass(frozen=True)
class FigureBlock:
    """Figures side by side with captions, and the name of their files."""

    form: ClassVar[str] = "figures"
    name: str
    drawings: list[tuple[str, Figure]]

    @property
    def stems(self) -> list[str]:
        """Names of the files of its figures, without the section's key and the suffix."""
        if len(self.drawings) == 1:
            return [self.name]
        return [f"{self.name}-{own}" for own in slugs(caption for caption, _ in self.drawings)]


@dataclass(frozen=True)
class PanelsBlock:
    """Block of image panels, or the reason of their absence."""

    form: ClassVar[str] = "panels"
    panels: Panels | None
    note: str


@dataclass(frozen=True)
class CaptionedPicture:
    """Picture of a page.

    Args:
        uri: Content as a data URI.
        about: Text for people who do not see the picture.
        caption: Caption.
        file: Name of the image file, in small print, or "".
    """

    uri: str
    about: str
    caption: str
    file: str = ""


@dataclass(frozen=True)
class PicturesBlock:
    """Block of pictures side by side, large ones or smaller ones."""

    form: ClassVar[str] = "pictures"
    pictures: list[CaptionedPicture]
    large: bool = False


@dataclass(frozen=True)
class Details:
    """Collapsed blocks, which are shown on demand and in print."""

    form: ClassVar[str] = "fold"
    title: str
    blocks: list[Text | TableBlock]


Block = Text | TableBlock | FigureBlock | PanelsBlock | PicturesBlock | Details


@dataclass(frozen=True)
class Section:
    """Section of the page.

    Args:
        key: Unique key: anchor, and prefix of file names.
        short: Title in the table of contents.
        title: Heading.
        blocks: Content.
    """

    key: str
    short: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Chapter:
    """Chapter of the page on one domain.

    Args:
        title: Domain, or "" in a study without domains.
        sections: Sections in order.
        key: Unique prefix of the keys of its sections.
    """

    title: str
    sections: list[Section]
    key: str = ""


@dataclass(frozen=True)
class PlainPage:
    """Page with a headline and sections.

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
    mood: Literal["", "won", "ahead", "lost"]
    sections: list[Section]
    footer: str


@dataclass(frozen=True)
class ExportedFile:
    """File of a figure or a table beside the page.

    Args:
        folder: Its folder in the study folder.
        stem, suffix: Its name: stem.suffix.
        content: Its text.
    """

    folder: Literal["tables", "figures"]
    stem: str
    suffix: Literal["csv", "tex", "svg"]
    content: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.stem}.{self.suffix}"

    @property
    def link(self) -> tuple[str, str, str]:
        """Text of a link to the file, its name, and its content as a data URI."""
        text, kind = _KINDS[self.suffix]
        data = base64.b64encode(self.content.encode()).decode("ascii")
        return text, self.name, f"data:{kind};base64,{data}"


def exported(sections: Iterable[Section]) -> Iterator[ExportedFile]:
    """Files of all figures and tables."""
    for section in sections:
        for outer in section.blocks:
            for block in outer.blocks if isinstance(outer, Details) else [outer]:
                if isinstance(block, TableBlock):
                    name = f"{section.key}-{block.name}"
                    yield ExportedFile("tables", name, "csv", block.table.csv)
                    yield ExportedFile("tables", name, "tex", block.table.latex(name))
                elif isinstance(block, FigureBlock):
                    for stem, (_, drawing) in zip(block.stems, block.drawings, strict=True):
                        yield ExportedFile("figures", f"{section.key}-{stem}", "svg", drawing.svg)


def unique_names(blocks: Sequence[Block]) -> list[Block]:
    """Blocks of a section with unique file names.

    Names of sets and backbones are shortened, so that two may coincide; later ones get a number.
    """
    taken: set[tuple[type, str]] = set()

    def own(block: Any) -> Any:
        if isinstance(block, Details):
            return replace(block, blocks=[own(one) for one in block.blocks])
        if not isinstance(block, TableBlock | FigureBlock):
            return block
        found, count = block, 1
        while taken & (names := {(type(found), stem) for stem in found.stems}):
            count += 1
            found = replace(block, name=f"{block.name}-{count}")
        taken.update(names)
        return found

    return [own(block) for block in blocks]


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
    styles = {
        "light": _variables(LIGHT),
        "dark": _variables(DARK),
        "ramp": ", ".join(magma(8)),
    }
    environment.globals["styles"] = {name: Markup(text) for name, text in styles.items()}
    return environment


def _variables(colors: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colors.items())


def render_plain_page(page: PlainPage) -> str:
    """Page as HTML."""
    return html_environment().get_template("plain_page.html.j2").render(page=page, links={})


def typeset(text: str) -> str:
    """Typographic minus signs, and no line breaks after α and before %.

    Example:
        >>> typeset("(-0.1, best α, 95 %)") == "(−0.1, best\u00a0α, 95\u00a0%)"
        True
    """
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    text = re.sub(r"(?<=\d) %", "\u00a0%", text).replace(" − ", "\u00a0− ")
    return text.replace("α ", "α\u00a0").replace("best α", "best\u00a0α")
