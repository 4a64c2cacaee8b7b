"""Content of a page: tables of cells and their files, blocks, sections, and their HTML."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from preceptor.report.figures import Figure
from preceptor.report.palette import DARK, LIGHT, magma
from preceptor.report.panels import Panels
from preceptor.study.config import PAPER_ALPHA
from preceptor.utils.text import DASH, number

SHORT = {
    "baseline1_paper": f"Baseline 1, α {PAPER_ALPHA:g}",
    "baseline1": "Baseline 1, best α",
    "baseline2": "Baseline 2",
    "student": "Student",
    "shuffled": "Shuffled maps",
    "centre": "Centred map",
    "pca": "PCA maps",
    "shuffled_human": "Human maps, shuffled",
    "mixed": "Mixed, no Teacher",
    "masked": "Marked regions alone",
    "dfr": "Last layer trained again",
    "baseline1_started": "Baseline 1, mapper's weights",
    "baseline2_started": "Baseline 2, mapper's weights",
    "student_started": "Student, mapper's weights",
    "mapper": "Mapper, annotated",
    "mapper_all": "Mapper, all maps",
    "ceiling": "Ceiling",
}
"""Names that fit an axis, by the key of a `results.Row`, in the order of the tables."""

_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "α": r"$\alpha$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "–": "--",
    "…": r"\dots{}",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "▲": "",
    "\u00a0": "~",
    # In LaTeX's default font encoding, these would print as other characters.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


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

    caption: str
    corner: str
    columns: list[str]
    lines: list[Line]
    sortable: bool = False

    @property
    def markdown(self) -> str:
        """Table in Markdown with its caption; the best of a column is bold."""

        def shown(cell: Cell) -> str:
            text = f"**{plain(cell.text)}**" if cell.best else plain(cell.text)
            return f"{text} ({plain(cell.note)})" if cell.note else text

        head = [plain(name) for name in (self.corner, *self.columns)]
        rows = [[plain(line.heading), *map(shown, line.cells)] for line in self.lines]
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        return "\n".join([f"**{plain(self.caption)}**", "", *lines])

    @property
    def csv(self) -> str:
        """Table as CSV: formatted values with hyphens as minus signs and notes in brackets."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([self.corner, *self.columns])
        for line in self.lines:
            texts = (f"{one.text} ({one.note})" if one.note else one.text for one in line.cells)
            writer.writerow([line.heading, *(text.replace("−", "-") for text in texts)])
        return buffer.getvalue()

    def latex(self, name: str) -> str:
        """Table in LaTeX with booktabs rules and a label; the best of a column is bold."""
        rows = []
        for line in self.lines:
            cells = [latex(line.heading)]
            for cell in line.cells:
                text = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
                cells.append(f"{text} ({latex(cell.note)})" if cell.note else text)
            # After the end of a row, LaTeX interprets a bracket or a star as an argument.
            guard = "{}" if line.heading.startswith(("[", "*")) else ""
            rows.append(guard + " & ".join(cells) + r" \\")
        return "\n".join(
            [
                r"% Needs \usepackage{booktabs}.",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{latex(self.caption)}}}",
                rf"\label{{tab:{name}}}",
                rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
                r"\toprule",
                " & ".join(map(latex, [self.corner, *self.columns])) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def plain(text: str) -> str:
    """Text with escaped cell separators of Markdown."""
    return text.replace("|", "\\|")


def latex(text: str) -> str:
    r"""Escaped text for LaTeX.

    Example:
        >>> latex("α 0.5 & 95 %: −0.1 ± 0.2")
        '$\\alpha$ 0.5 \\& 95 \\%: $-$0.1 $\\pm$ 0.2'
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


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
    """Picture of a page."""

    uri: str  # content as a data URI
    about: str  # text for people who do not see the picture
    caption: str
    file: str = ""  # name of the image file, in small print, or ""


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
    """Section of the page."""

    key: str  # unique key: anchor, and prefix of file names
    short: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Chapter:
    """Chapter of the page on one domain."""

    title: str  # domain, or "" in a study without domains
    sections: list[Section]
    key: str = ""  # unique prefix of the keys of its sections


@dataclass(frozen=True)
class PlainPage:
    """Page with a headline and sections."""

    name: str
    kind: str  # what the page is about, in the title
    facts: list[str]
    headline: str
    sentences: list[str]
    mood: Literal["", "won", "ahead", "lost"]
    sections: list[Section]
    footer: str  # what the page was made from


@dataclass(frozen=True)
class ExportedFile:
    """File of a figure or a table beside the page."""

    folder: Literal["tables", "figures"]  # its folder in the study folder
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
    """Blocks of a section with unique file names."""
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
        >>> typeset("(-0.1, best α, 95 %)") == "(−0.1, best α, 95 %)"
        True
    """
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    text = re.sub(r"(?<=\d) %", "\u00a0%", text).replace(" − ", "\u00a0− ")
    return text.replace("α ", "α\u00a0").replace("best α", "best\u00a0α")
