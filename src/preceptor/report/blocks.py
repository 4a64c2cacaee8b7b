"""Content of a page: texts, tables, figures and pictures in sections, and their HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from preceptor.report.figures import Figure
from preceptor.report.palette import DARK, LIGHT, magma
from preceptor.study.config import PAPER_ALPHA
from preceptor.utils.text import DASH, number

SHORT = {
    "baseline1_paper": f"Baseline 1, α {PAPER_ALPHA:g}",
    "baseline1": "Baseline 1, best α",
    "baseline2": "Baseline 2",
    "student": "Student",
    "shuffled": "Shuffled maps",
    "centre": "Centered map",
    "pca": "PCA maps",
    "shuffled_human": "Human maps, shuffled",
    "mixed": "Mixed, no Teacher",
    "masked": "Marked regions alone",
    "dfr": "Last layer trained again",
    "repair": "Repaired",
    "repair_shuffled": "Repaired, maps shuffled",
    "student_dfr": "Student, last layer again",
    "student_repair": "Student, repaired",
    "baseline1_started": "Baseline 1, mapper's weights",
    "baseline2_started": "Baseline 2, mapper's weights",
    "student_started": "Student, mapper's weights",
    "mapper": "Mapper, annotated",
    "mapper_all": "Mapper, all maps",
    "ceiling": "Ceiling",
}
"""Names that fit an axis, by the key of a `results.Row`, in the order of the tables."""


def short(key: str) -> str:
    """Short name of a table row for an axis."""
    return SHORT.get(key) or key[:1].upper() + key[1:]


@dataclass(frozen=True)
class Cell:
    """Cell of a table."""

    text: str = DASH
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """Row of a table: heading, cells, and whether it is the Student's row."""

    heading: str
    cells: list[Cell]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Table of formatted cells."""

    form: ClassVar[str] = "table"
    caption: str
    corner: str
    columns: list[str]
    lines: list[Line]

    @property
    def markdown(self) -> str:
        """Table in Markdown with its caption; the best of a column is bold."""

        def shown(cell: Cell) -> str:
            text = f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text)
            return f"{text} ({_plain(cell.note)})" if cell.note else text

        head = [_plain(name) for name in (self.corner, *self.columns)]
        rows = [[_plain(line.heading), *map(shown, line.cells)] for line in self.lines]
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        return "\n".join([f"**{_plain(self.caption)}**", "", *lines])


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def mean_std_text(mean: Any, std: Any) -> str:
    """Mean ± std; only the mean for one seed."""
    if std is None or not math.isfinite(std):
        return number(mean)
    return f"{number(mean)} ± {number(std)}"


def common_seeds_text(difference: float, student: float, other: float, seeds: int) -> str:
    """Note on a paired difference that is not that of the two means; "" if it is.

    Example:
        >>> common_seeds_text(0.1, 0.8, 0.7, 3), common_seeds_text(0.05, 0.8, 0.7, 2)
        ('', 'of 2 common seeds')
    """
    if not abs(student - other - difference) > 1e-9:
        return ""
    return f"of {seeds} common seed{'' if seeds == 1 else 's'}"


def names_of(names: Iterable[str]) -> str:
    """Names as an enumeration in a sentence."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def slug(name: str) -> str:
    """Name as part of an anchor and of a file name.

    Example:
        >>> slug("Magnetic tiles, 2020")
        'magnetic-tiles-2020'
    """
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-")


def slugs(names: Iterable[str]) -> list[str]:
    """Slug of each name; of equal slugs, later ones get a number."""
    found: list[str] = []
    for name in names:
        own, count = slug(name), 1
        while own in found:
            count += 1
            own = f"{slug(name)}-{count}"
        found.append(own)
    return found


class Block(Protocol):
    """Part of a section, which a template of its form draws."""

    form: ClassVar[str]


@dataclass(frozen=True)
class Text:
    """Paragraph: plain text, an answer, a note on missing results ("none"), or a heading."""

    form: ClassVar[str] = "text"
    text: str
    kind: str = "plain"


@dataclass(frozen=True)
class FigureBlock:
    """Figures side by side with captions; the name is unique in its section."""

    form: ClassVar[str] = "figures"
    name: str
    drawings: list[tuple[str, Figure]]


@dataclass(frozen=True)
class CaptionedPicture:
    """Picture of a page."""

    uri: str  # content as a data URI
    about: str  # text for people who do not see the picture
    caption: str
    file: str = ""  # name of the image file, in small print, or ""


@dataclass(frozen=True)
class PicturesBlock:
    """Block of pictures side by side."""

    form: ClassVar[str] = "pictures"
    pictures: list[CaptionedPicture]


@dataclass(frozen=True)
class Section:
    """Section of a page; a folded one shows its title and its answer until it is opened."""

    key: str  # unique key: anchor, and prefix of file names
    short: str
    title: str
    blocks: Sequence[Block]
    answer: str = ""
    folded: bool = False


@dataclass(frozen=True)
class PlainPage:
    """Page with a headline and sections."""

    kind: str
    name: str
    facts: list[str]
    headline: str
    sentences: list[str]
    sections: list[Section]
    footer: str  # what the page was made from
    tone: str = ""  # class of the headline: lost, mixed, or "" for neither


def html_environment() -> Environment:
    """Environment of the templates in `report/templates`, with escaping."""
    environment = Environment(
        loader=PackageLoader("preceptor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"typeset": typeset, "two": lambda value: number(value, 2)}
    environment.globals["words"] = ("Remark", "Reason", "By seed")  # columns that hold words
    styles = {
        "light": " ".join(f"--{name}: {value};" for name, value in LIGHT.items()),
        "dark": " ".join(f"--{name}: {value};" for name, value in DARK.items()),
        "ramp": ", ".join(magma(8)),
    }
    environment.globals["styles"] = {name: Markup(text) for name, text in styles.items()}
    return environment


def render_plain_page(page: PlainPage) -> str:
    """Page as HTML."""
    return html_environment().get_template("plain_page.html.j2").render(page=page)


def typeset(text: str) -> str:
    """Typographic minus signs, and no line breaks after α and before %."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    text = re.sub(r"(?<=\d) %", "\u00a0%", text).replace(" − ", "\u00a0− ")
    return text.replace("α ", "α\u00a0").replace("best α", "best\u00a0α")
