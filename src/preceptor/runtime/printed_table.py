"""Tables in the terminal whose headings and numbers are whole on narrow ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    console: Console,
    *,
    right: Collection[str] = (),
) -> None:
    """Print a table; its cells are not interpreted as markup.

    Where it is too wide, the widest columns are made narrower, but words of headings and numbers
    are not divided. If it is too wide even so, all columns keep their width, and the terminal
    continues each line on the next.

    Args:
        header: Headings.
        lines: Cells of each line.
        console: Console of the terminal.
        right: Headings of the columns that are aligned at the right.
    """
    columns = list(zip(header, *lines, strict=True))
    widths = _widths(columns, console.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in zip(header, widths, strict=True):
        justify = "right" if name in right else "left"
        table.add_column(escape(name), justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for line in lines:
        table.add_row(*map(escape, line))
    before = console.width
    console.width = max(before, _total(widths))
    console.print(table, soft_wrap=console.width > before)
    console.width = before


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Width of each column in cells."""
    whole = [max(map(cell_len, column)) for column in columns]
    least = [_least(column) for column in columns]
    if _total(least) > room:
        return whole
    widths = list(whole)
    while _total(widths) > room:
        at = max(range(len(widths)), key=lambda one: (widths[one] > least[one], widths[one]))
        widths[at] -= 1
    return widths


def _least(column: Sequence[str]) -> int:
    """Longest word of the heading, or of a cell if it has no letters."""
    numbers = (word for cell in column[1:] for word in cell.split() if not _has_letters(word))
    return max(map(cell_len, (*column[0].split(), *numbers)), default=1)


def _has_letters(word: str) -> bool:
    return any(map(str.isalpha, word))


def _total(widths: Sequence[int]) -> int:
    """Width of a table: two blanks between columns, one at each side."""
    return sum(widths) + 2 * len(widths)
