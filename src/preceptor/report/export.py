"""Export of figures and tables: self-contained SVG, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from preceptor.report.blocks import Details, FigureBlock, Section, TableBlock
from preceptor.report.cells import Cell, Table
from preceptor.report.figure_style import file_styles, series_class
from preceptor.report.palette import LIGHT
from preceptor.report.svg import LETTER, Element, Figure, label, line

_MARGIN = 14.0  # around an entry of a legend
_SAMPLE = 40.0  # of its line, with the space before its name
_SYMBOLS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
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


def exported(sections: Iterable[Section]) -> Iterator[ExportedFile]:
    """Files of all figures and tables."""
    for section in sections:
        flat = [
            inner
            for block in section.blocks
            for inner in (block.blocks if isinstance(block, Details) else [block])
        ]
        for block in flat:
            if isinstance(block, TableBlock):
                name = f"{section.key}-{block.name}"
                yield ExportedFile("tables", name, "csv", table_csv(block.table))
                yield ExportedFile("tables", name, "tex", table_latex(block.table, name))
            elif isinstance(block, FigureBlock):
                for file, drawing in drawing_names(section, block):
                    content = standalone(drawing, block.used(drawing), block.marks)
                    yield ExportedFile("figures", file, "svg", content)


def drawing_names(section: Section, block: FigureBlock) -> list[tuple[str, Figure]]:
    """File name (without suffix) of each figure of a block, and the figure."""
    return [
        (f"{section.key}-{stem}", drawing)
        for stem, (_, drawing) in zip(block.stems, block.drawings, strict=True)
    ]


def table_csv(table: Table) -> str:
    """Table as CSV: formatted values with hyphens as minus signs and notes in brackets."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([table.corner, *table.columns])
    for row in table.lines:
        writer.writerow([row.heading, *(_plain(cell) for cell in row.cells)])
    return buffer.getvalue()


def _plain(cell: Cell) -> str:
    text = f"{cell.text} ({cell.note})" if cell.note else cell.text
    return text.replace("−", "-")


def table_latex(table: Table, name: str) -> str:
    """Table as LaTeX with booktabs rules; the best of a column is bold."""
    head = [table.corner, *table.columns]
    rows = []
    for row in table.lines:
        cells = [latex(row.heading)]
        for cell in row.cells:
            text = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
            cells.append(f"{text} ({latex(cell.note)})" if cell.note else text)
        # After the end of a row, LaTeX interprets a bracket or a star as an argument.
        guard = "{}" if row.heading.startswith(("[", "*")) else ""
        rows.append(guard + " & ".join(cells) + r" \\")
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(table.caption)}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            " & ".join(latex(text) for text in head) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex(text: str) -> str:
    r"""Escaped text for LaTeX.

    Example:
        >>> latex("α 0.5 & 95 %: −0.1 ± 0.2")
        '$\\alpha$ 0.5 \\& 95 \\%: $-$0.1 $\\pm$ 0.2'
    """
    return "".join(_SYMBOLS.get(letter, letter) for letter in text)


def standalone(drawing: Figure, legend: Sequence[tuple[str, str]] = (), marks: bool = False) -> str:
    """Figure of the page as a self-contained SVG file with white background, legend and styles.

    Args:
        drawing: Figure.
        legend: Color key and name of each line, shown below the figure: in two columns if the names
            are short enough, else in one, for which the figure is made wider if need be.
        marks: Whether the legend shows means with intervals instead of curves.
    """
    letters = max((len(name) for _, name in legend), default=0)
    needed = _MARGIN + _SAMPLE + LETTER * letters if legend else 0.0
    columns = 2 if needed <= drawing.width / 2 else 1
    width = max(drawing.width, needed)
    entries = [
        _legend_entry(
            _MARGIN + (place % columns) * drawing.width / 2,
            drawing.height + 8 + 20 * (place // columns),
            *one,
            marks,
        )
        for place, one in enumerate(legend)
    ]
    below = [Element(f'<g class="legend">{"".join(entries)}</g>')] if entries else []
    height = drawing.height + 20 * math.ceil(len(legend) / columns)
    whole = Figure(width, height, drawing.title, (*drawing.body, *below))
    size = f'width="{width:g}" height="{height:g}"'
    return (
        whole.markup(
            f'xmlns="http://www.w3.org/2000/svg" {size} ',
            f'<style>{file_styles()}</style><rect {size} fill="{LIGHT["paper"]}"/>',
        )
        + "\n"
    )


def _legend_entry(x: float, y: float, key: str, name: str, marks: bool) -> str:
    """Entry of the legend: a sample of the line, and its name."""
    sample = line(x, y, x + 32, y, "mean" if marks else "curve", key).text
    if marks:
        sample += f'<circle cx="{x + 16:g}" cy="{y:g}" r="4.5" class="dot {series_class(key)}"/>'
    return sample + label(x + _SAMPLE, y + 4, name).text
