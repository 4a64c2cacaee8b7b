"""Numbers, intervals, durations, docstrings, tables and progress on a terminal as text."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # rich is imported where it is used, since `--help` uses this module
    from rich.console import Console
    from rich.progress import Progress as Display

DASH = "–"  # where there is no number


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """Number with a proper minus sign, none for a rounded zero; a dash for NaN."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def p_value(value: Any) -> str:
    """p-value with three digits, which is never written as 0 but as <0.001; a dash for NaN."""
    known = value is not None and math.isfinite(value)
    return "<0.001" if known and value < 0.001 else number(value)


def interval(low: Any, high: Any, *, sign: bool = True) -> str:
    """Interval, of differences with signs; a dash if it is undefined."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return f"{_end(low, sign)} to {_end(high, sign)}"


def _end(value: float, sign: bool) -> str:
    """End of an interval; with more digits where three are 0, since its sign has a meaning."""
    is_small = 0 < abs(value) < 0.0005
    return number(value, min(6, -math.floor(math.log10(abs(value)))) if is_small else 3, sign)


def percent(value: float) -> str:
    """Share as a percentage, which may be infinite: 46%, −5%, −∞; a dash for NaN."""
    if math.isnan(value):
        return DASH
    text = f"{value:z.0%}" if math.isfinite(value) else "∞" if value > 0 else "-∞"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """Duration with its unit: 0.5 s, 30 s, 12 min, 2.0 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def threshold_text(threshold: float) -> str:
    """Threshold of a score, with its log-odds where six digits round it to 0 or 1."""
    if threshold == 1:
        return "1, the highest possible score"
    if not 0 < threshold < 1 or 1e-6 <= threshold <= 1 - 1e-6:
        return f"{threshold:.6g}"
    odds = math.log(threshold) - math.log1p(-threshold)
    return f"{threshold!r} (log-odds {odds:.4g})"


def gibibytes(count: int) -> str:
    """Number of bytes in GiB."""
    return f"{count / 2**30:,.1f} GiB"


_ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)")


def argument_descriptions(docstring: str) -> dict[str, str]:
    """Description of each argument in the section Args, each in one line."""
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    entries: list[str] = []
    for line in section.split("\n"):
        if line and not line.startswith("    "):
            break
        if line.startswith("        "):
            entries[-1] += f" {line.strip()}"
        elif line:
            entries.append(line.strip())
    matches = [match for entry in entries if (match := _ENTRY.match(entry))]
    return {name: match[2] for match in matches for name in match[1].split(", ")}


def print_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    console: Console,
    *,
    right: Collection[str] = (),
) -> None:
    """Print a table; its cells are not interpreted as markup.

    On a narrow terminal, the widest columns become narrower, but words of headings, short words and
    numbers stay whole. If it is too wide even so, the terminal continues each line on the next.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.markup import escape
    from rich.table import Table

    columns = list(zip(header, *lines, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = []  # the longest word of a heading, or of a cell if it is short or has no letters
    for name, *cells in columns:
        words = [word for cell in cells for word in cell.split()]
        whole = [word for word in words if len(word) <= 12 or not any(map(str.isalpha, word))]
        least.append(max(map(cell_len, [*name.split(), *whole]), default=1))
    margins = 2 * len(columns)  # two blanks between columns, one at each side
    before = console.width
    if sum(least) + margins > before:
        console.width = max(before, sum(widths) + margins)
    while sum(widths) + margins > console.width:
        at = max(range(len(widths)), key=lambda one: (widths[one] > least[one], widths[one]))
        widths[at] -= 1
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in zip(header, widths, strict=True):
        justify = "right" if name in right else "left"
        table.add_column(escape(name), justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table, soft_wrap=console.width > before)
    console.width = before


Item = TypeVar("Item")
Progress = Callable[[int, int], None]  # called with (done, total) while items are worked on
_silent = False


def progress() -> Display:
    """Progress display on standard error, which prints nothing if that is not a terminal."""
    from rich import progress as parts
    from rich.console import Console

    console = Console(stderr=True, force_terminal=False if _silent else None)
    return parts.Progress(
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TimeRemainingColumn(),
        parts.TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def silence() -> None:
    """Disable progress bars in this process; used by workers, which share a terminal."""
    global _silent
    _silent = True


def track(items: Iterable[Item], *, total: int, title: str) -> Iterator[Item]:
    """Yield items under a progress bar."""
    with progress() as bar:
        task = bar.add_task(title, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)
