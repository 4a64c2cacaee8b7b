"""Figures and tables as files of their own: SVG that any program draws, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

from preceptor.report.cells import Cell, Table
from preceptor.report.chapters import Chapter, Drawn, Fold, Section, Shown

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
                    yield f"figures/{file}.svg", standalone(drawing)


def drawing_names(section: Section, block: Drawn) -> list[tuple[str, str]]:
    """The file name (without its end) and the SVG of each figure of a block."""
    drawings = [str(drawing) for _, drawing in block.drawings]
    return [
        (f"{section.key}-{stem}", drawing)
        for stem, drawing in zip(block.stems, drawings, strict=True)
    ]


def all_sections(chapters: Iterable[Chapter]) -> list[Section]:
    """The sections of all chapters."""
    return [section for one in chapters for section in one.sections]


def table_csv(table: Table) -> str:
    """A table as CSV: the values as they are shown, hyphens for minus signs, notes in brackets."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([table.corner, *table.columns])
    for line in table.lines:
        writer.writerow([line.heading, *(_plain(cell) for cell in line.cells)])
    return buffer.getvalue()


def _plain(cell: Cell) -> str:
    text = f"{cell.text} ({cell.note})" if cell.note else cell.text
    return text.replace("−", "-")


def table_latex(table: Table, name: str) -> str:
    """A table for a paper: a `table` with booktabs rules; the best of a column is bold."""
    head = [table.corner, *table.columns]
    rows = []
    for line in table.lines:
        cells = [latex(line.heading)]
        for cell in line.cells:
            text = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
            cells.append(f"{text} ({latex(cell.note)})" if cell.note else text)
        # After the end of a row, LaTeX takes a bracket or a star for an argument of it.
        guard = "{}" if line.heading.startswith(("[", "*")) else ""
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


def standalone(drawing: str) -> str:
    """A figure of the page as an SVG file: namespace, white ground, and its own plain styles."""
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    assert size is not None
    ground = f'<rect width="{size[1]}" height="{size[2]}" fill="#fff"/>'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[1]}" height="{size[2]}" '
    body = re.sub(r"<svg ", opening, drawing, count=1)
    return body.replace("</title>", f"</title><style>{_styles()}</style>{ground}", 1) + "\n"


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
