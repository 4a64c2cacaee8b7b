"""Figures and tables as files of their own: SVG that any program draws, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files

from preceptor.report.blocks import Drawn, Fold, Section, Shown
from preceptor.report.cells import Cell, Table
from preceptor.report.svg import label, line

_SYMBOLS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": r"$-$", "α": r"$\alpha$", "×": r"$\times$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$", "–": "--", "…": r"\dots{}",
    "÷": r"$\div$", "·": r"$\cdot$", "▲": "", "\u00a0": "~",
    # In the font encoding that is LaTeX's own, these would print as other signs.
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def exported(sections: Iterable[Section]) -> Iterator[tuple[str, str]]:
    """Name and content of the file of every figure and table, as `figures/…` and `tables/…`."""
    for section in sections:
        flat = [
            inner
            for block in section.blocks
            for inner in (block.blocks if isinstance(block, Fold) else [block])
        ]
        for block in flat:
            if isinstance(block, Shown):
                name = f"{section.key}-{block.name}"
                yield f"tables/{name}.csv", table_csv(block.table)
                yield f"tables/{name}.tex", table_latex(block.table, name)
            elif isinstance(block, Drawn):
                for file, drawing in drawing_names(section, block):
                    yield (
                        f"figures/{file}.svg",
                        standalone(drawing, block.used(drawing), block.marks),
                    )


def drawing_names(section: Section, block: Drawn) -> list[tuple[str, str]]:
    """The file name (without its end) and the SVG of each figure of a block."""
    drawings = [str(drawing) for _, drawing in block.drawings]
    return [
        (f"{section.key}-{stem}", drawing)
        for stem, drawing in zip(block.stems, drawings, strict=True)
    ]


def table_csv(table: Table) -> str:
    """A table as CSV: the values as they are shown, hyphens for minus signs, notes in brackets."""
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
    """A table for a paper: a `table` with booktabs rules; the best of a column is bold."""
    head = [table.corner, *table.columns]
    rows = []
    for row in table.lines:
        cells = [latex(row.heading)]
        for cell in row.cells:
            text = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
            cells.append(f"{text} ({latex(cell.note)})" if cell.note else text)
        # After the end of a row, LaTeX takes a bracket or a star for an argument of it.
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
    r"""Text as LaTeX.

    Example:
        >>> latex("α 0.5 & 95 %: −0.1 ± 0.2")
        '$\\alpha$ 0.5 \\& 95 \\%: $-$0.1 $\\pm$ 0.2'
    """
    return "".join(_SYMBOLS.get(letter, letter) for letter in text)


def standalone(drawing: str, legend: Sequence[tuple[str, str]] = (), marks: bool = False) -> str:
    """A figure of the page as an SVG file: namespace, white ground, its legend, its own styles.

    Args:
        drawing: The figure.
        legend: Colour key and name of each line, written below the figure.
        marks: The legend shows means with their intervals, and no curves.
    """
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    assert size is not None
    width, height = float(size[1]), float(size[2])
    below = [_legend_entry(place, height, *entry, marks) for place, entry in enumerate(legend)]
    height += 20 * math.ceil(len(legend) / 2)
    head = re.sub(r'viewBox="[^"]*"', f'viewBox="0 0 {width:g} {height:g}"', drawing, count=1)
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
    ground = f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>'
    body = head.replace("<svg ", opening, 1).removesuffix("</svg>")
    body = body.replace("</title>", f"</title><style>{_styles()}</style>{ground}", 1)
    return body + (f'<g class="legend">{"".join(below)}</g>' if below else "") + "</svg>\n"


def _legend_entry(place: int, top: float, key: str, name: str, marks: bool) -> str:
    """A line of the legend, two side by side."""
    x, y = 14.0 + 180 * (place % 2), top + 8 + 20 * (place // 2)
    sample = line(x, y, x + 32, y, f"{'mean' if marks else 'curve'} s-{key}")
    if marks:
        sample += f'<circle cx="{x + 16:g}" cy="{y:g}" r="4.5" class="dot s-{key}"/>'
    return sample + label(x + 40, y + 4, name)


@cache
def _styles() -> str:
    """The page's rules for figures in its light colours, without variables or nesting.

    Drawing programs know no CSS variables: a rule that takes its colour from the line's key is
    written out for each key.
    """
    css = (files("preceptor.report") / "templates" / "report.css").read_text(encoding="utf-8")
    light = re.search(r":root \{(.*?)\}", css, re.DOTALL)
    assert light is not None
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", light[1]))
    keys = {
        key: colours[name]
        for rule, name in re.findall(r"((?:\.s-\w+(?:, )?)+) \{ --c: var\(--(\w+)\); \}", css)
        for key in re.findall(r"\.(s-\w+)", rule)
    }
    rules = ["text{font-family:Helvetica,Arial,sans-serif}"]
    for selectors, style in re.findall(r"(?:^|\} )(?=svg )([^{\n]*?) \{ ([^}]*)(?= \})", css, re.M):
        plain = re.sub(r"var\(--(?!c\b)([\w-]+)\)", lambda name: colours[name[1]], style)
        if "inherit" in plain:
            plain = plain.replace("font-family: inherit; ", "")
        for selector in re.sub(r"\bsvg ", "", selectors).split(", "):
            if selector.startswith(("svg", "[")):
                continue
            if "var(--c)" in plain:
                for key, colour in keys.items():
                    rules.append(f"{selector}.{key}{{{plain.replace('var(--c)', colour)}}}")
            else:
                rules.append(f"{selector}{{{plain}}}")
    return "".join(rules)
