"""What a page is made of: blocks in sections in chapters, with names for anchors and files."""

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
    """A paragraph: plain text, an answer, what is not there ("none"), or a heading."""

    form: ClassVar[str] = "text"
    text: str
    kind: str = "plain"


@dataclass(frozen=True)
class Shown:
    """A table, under a name that its files have too."""

    form: ClassVar[str] = "table"
    name: str
    table: Table


@dataclass(frozen=True)
class Drawn:
    """Figures side by side, each with its caption, under a name that their files have too.

    Args:
        name: Of the files.
        drawings: Caption and figure.
        legend: Colour key and name of each line.
        wide: Too wide for a phone: it scrolls there.
        marks: It shows means with their intervals, and no curves.
    """

    form: ClassVar[str] = "figures"
    name: str
    drawings: list[tuple[str, Figure]]
    legend: list[tuple[str, str]] = field(default_factory=list)
    wide: bool = False
    marks: bool = False

    def used(self, drawing: Figure | None = None) -> list[tuple[str, str]]:
        """The entries of the legend that a figure has, or any of them."""
        figures = [figure for _, figure in self.drawings] if drawing is None else [drawing]
        drawn = frozenset[str]().union(*(figure.series for figure in figures))
        return [entry for entry in self.legend if entry[0] in drawn]

    @property
    def stems(self) -> list[str]:
        """The name of each figure's file, after the section's key and without its end."""
        if len(self.drawings) == 1:
            return [self.name]
        return [f"{self.name}-{own}" for own in slugs(caption for caption, _ in self.drawings)]


@dataclass(frozen=True)
class Looks:
    """The panels, or why there are none."""

    form: ClassVar[str] = "looks"
    panels: Panels | None
    note: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown on demand, and in print."""

    form: ClassVar[str] = "fold"
    title: str
    blocks: list[Text | Shown]


Block = Text | Shown | Drawn | Looks | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        key: Its anchor and the start of its files' names, unique on the page.
        short: In the list of contents.
        title: Its heading.
        blocks: What stands in it.
    """

    key: str
    short: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Chapter:
    """All of one domain.

    Args:
        title: The domain, or "" where the study has none.
        sections: In their order.
        key: The start of its sections' keys, unique on the page.
    """

    title: str
    sections: list[Section]
    key: str = ""


def apart(blocks: Sequence[Block]) -> list[Block]:
    """The blocks of a section, none of whose files has the name of another's.

    Names of sets and backbones are shortened, so that two may become the same; a later one gets a
    number.
    """
    taken: set[tuple[type, str]] = set()

    def free(block: Shown | Drawn) -> bool:
        stems = block.stems if isinstance(block, Drawn) else [block.name]
        names = {(type(block), stem) for stem in stems}
        fits = not names & taken
        if fits:
            taken.update(names)
        return fits

    def own(block: Block) -> Block:
        if isinstance(block, Fold):
            inner = [own(one) for one in block.blocks]
            return replace(block, blocks=[one for one in inner if isinstance(one, Text | Shown)])
        if not isinstance(block, Shown | Drawn):
            return block
        found, count = block, 1
        while not free(found):
            count += 1
            found = replace(block, name=f"{block.name}-{count}")
        return found

    return [own(block) for block in blocks]


def slugs(names: Iterable[str]) -> list[str]:
    """The slug of each name; of names that would have the same, later ones have a number.

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
    """A name as part of an anchor and of a file's name.

    Example:
        >>> slug("Magnetic tiles, 2020")
        'magnetic-tiles-2020'
    """
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-")
