"""Numbers, intervals, durations and tables as text."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

DASH = "–"
"""Stands where there is no number."""


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """Number with a proper minus sign; a dash for NaN.

    Example:
        >>> number(0.12345), number(0.5, sign=True), number(-0.0001), number(float("nan"))
        ('0.123', '+0.500', '0.000', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if not text.strip("+-0."):  # zero after rounding has no sign
        text = text.lstrip("+-")
    return text.replace("-", "−")


def fine_number(value: Any, digits: int = 2) -> str:
    """Number with three decimals, and with more near 0 and 1, as of a confident model.

    Args:
        value: Number; NaN and None become a dash.
        digits: Significant digits of a distance from 0 or 1 below 0.001.

    Example:
        >>> fine_number(0.12345), fine_number(0.00001), fine_number(0.99999), fine_number(1.0)
        ('0.123', '0.000010', '0.999990', '1.000')
    """
    if value is None or not math.isfinite(value):
        return DASH
    rest = min(abs(value), abs(1 - value))
    if rest == 0 or rest >= 0.001:
        return number(value)
    return number(value, min(17, digits - 1 - math.floor(math.log10(rest) + 1e-6)))


def told_apart(first: float, second: float) -> tuple[str, str]:
    """Two numbers with as many digits as show which one is larger.

    Example:
        >>> told_apart(0.5, 0.7), told_apart(0.999991, 0.9999914)
        (('0.500', '0.700'), ('0.9999910', '0.9999914'))
    """
    texts = fine_number(first), fine_number(second)
    for decimals in range(4, 18):
        if first == second or texts[0] != texts[1]:
            break
        texts = number(first, decimals), number(second, decimals)
    return texts


def p_value(value: Any) -> str:
    """p-value with three digits, which is never written as 0; a dash for NaN.

    Example:
        >>> p_value(0.0317), p_value(0.0004), p_value(float("nan"))
        ('0.032', '<0.001', '–')
    """
    known = value is not None and math.isfinite(value)
    return "<0.001" if known and value < 0.001 else number(value)


def interval(low: Any, high: Any) -> str:
    """Interval of differences; a dash if it is undefined.

    Example:
        >>> interval(-0.01, 0.2)
        '−0.010 to +0.200'
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return f"{number(low, sign=True)} to {number(high, sign=True)}"


def between(low: float, high: float) -> str:
    """Interval of a quantity that is no difference; a dash if it is undefined.

    Example:
        >>> between(0.12, 0.2)
        '0.120 to 0.200'
    """
    return DASH if math.isnan(low) or math.isnan(high) else f"{number(low)} to {number(high)}"


def percent(value: float) -> str:
    """Share as a percentage, which may be infinite; a dash for NaN.

    Example:
        >>> percent(0.463), percent(-0.05), percent(float("-inf"))
        ('46%', '−5%', '−∞')
    """
    if math.isnan(value):
        return DASH
    text = f"{value:.0%}" if math.isfinite(value) else "∞" if value > 0 else "-∞"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """Duration with its unit.

    Example:
        >>> duration(0.52), duration(30), duration(7260)
        ('0.5 s', '30 s', '2.0 h')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def as_time(seconds: float) -> str:
    """Approximate duration in words.

    Example:
        >>> as_time(5400), as_time(40)
        ('1.5 hours', '40 seconds')
    """
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    if seconds >= 90:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds:.0f} seconds"


def gibibytes(count: int) -> str:
    """Number of bytes in GiB.

    Example:
        >>> gibibytes(3 * 2**29)
        '1.5 GiB'
    """
    return f"{count / 2**30:,.1f} GiB"


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
