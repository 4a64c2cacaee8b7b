"""Structure of the page: chapters, sections and blocks, with names for anchors and files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from preceptor.report.cells import Table
from preceptor.report.panels import Panels
from preceptor.report.svg import Figure


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


@dataclass(frozen=True)
class FigureBlock:
    """Figure block: figures side by side with captions, and the name of their files.

    Args:
        name: Name of the files.
        drawings: Captions and figures.
        legend: Color key and name of each line.
        wide: Whether the figure is too wide for a phone and scrolls.
        marks: Whether the figure shows means with intervals instead of curves.
    """

    form: ClassVar[str] = "figures"
    name: str
    drawings: list[tuple[str, Figure]]
    legend: list[tuple[str, str]] = field(default_factory=list)
    wide: bool = False
    marks: bool = False

    def used(self, drawing: Figure | None = None) -> list[tuple[str, str]]:
        """Entries of the legend that occur in the figures."""
        figures = [figure for _, figure in self.drawings] if drawing is None else [drawing]
        drawn = frozenset[str]().union(*(figure.series for figure in figures))
        return [entry for entry in self.legend if entry[0] in drawn]

    @property
    def stems(self) -> list[str]:
        """Name of each figure's file, without the section's key and the suffix."""
        if len(self.drawings) == 1:
            return [self.name]
        return [f"{self.name}-{own}" for own in slugs(caption for caption, _ in self.drawings)]


@dataclass(frozen=True)
class PanelsBlock:
    """Block of image panels, or the reason of their absence."""

    form: ClassVar[str] = "looks"
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


def unique_names(blocks: Sequence[Block]) -> list[Block]:
    """Blocks of a section with unique file names.

    Names of sets and backbones are shortened, so that two may coincide; later ones get a number.
    """
    taken: set[tuple[type, str]] = set()

    def free(block: TableBlock | FigureBlock) -> bool:
        stems = block.stems if isinstance(block, FigureBlock) else [block.name]
        names = {(type(block), stem) for stem in stems}
        fits = not names & taken
        if fits:
            taken.update(names)
        return fits

    def own(block: Block) -> Block:
        if isinstance(block, Details):
            inner = [own(one) for one in block.blocks]
            return replace(
                block, blocks=[one for one in inner if isinstance(one, Text | TableBlock)]
            )
        if not isinstance(block, TableBlock | FigureBlock):
            return block
        found, count = block, 1
        while not free(found):
            count += 1
            found = replace(block, name=f"{block.name}-{count}")
        return found

    return [own(block) for block in blocks]


def slugs(names: Iterable[str]) -> list[str]:
    """Slug of each name; of equal slugs, later ones get a number.

    Example:
        >>> slugs(["Tiles 1", "tiles-1", "Tiles"])
        ['tiles-1', 'tiles-1-2', 'tiles']
    """
    found: list[str] = []
    for name in names:
        own, count = slug(name), 1
        while own in found:
            count += 1
            own = f"{slug(name)}-{count}"
        found.append(own)
    return found


def slug(name: str) -> str:
    """Name as part of an anchor and of a file name.

    Example:
        >>> slug("Magnetic tiles, 2020")
        'magnetic-tiles-2020'
    """
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-")
