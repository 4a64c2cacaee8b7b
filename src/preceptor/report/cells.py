"""Tables of formatted cells, their files (Markdown, CSV, LaTeX), and short names of rows."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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
    "distilled": "Soft labels",
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
    """Short name of a table row for an axis.

    Example:
        >>> short("student"), short("variant blur")
        ('Student', 'Variant blur')
    """
    return SHORT.get(key) or key[:1].upper() + key[1:]


@dataclass(frozen=True)
class Cell:
    """Cell of a table.

    Args:
        text: Formatted value.
        note: Note in small print.
        best: Whether the value is the highest of its column (in a table by source, of its row).
    """

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
    """Table of formatted cells.

    Args:
        caption: Caption of one sentence.
        corner: Heading of the first column.
        columns: Headings of the other columns.
        lines: Rows.
        sortable: Whether rows can be sorted on the page.
    """

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

    In an unfinished study a mean may have seeds that the other side lacks, and the difference has
    the common ones.

    Args:
        difference: Mean difference over the common seeds.
        student, other: Mean of each side over its own seeds.
        seeds: Number of common seeds.

    Example:
        >>> common_seeds_text(0.1, 0.8, 0.7, 3), common_seeds_text(0.05, 0.8, 0.7, 2)
        ('', 'of 2 common seeds')
    """
    if not abs(student - other - difference) > 1e-9:
        return ""
    return f"of {seeds} common seed{'' if seeds == 1 else 's'}"


def names_of(names: Iterable[str]) -> str:
    """Names as an enumeration in a sentence.

    Example:
        >>> names_of(["a", "b", "c"])
        'a, b and c'
    """
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
