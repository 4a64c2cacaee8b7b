"""The cells of a table for people: numbers as text, names that fit an axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from preceptor.runtime.formatting import DASH, number
from preceptor.study.config import PAPER_ALPHA

SHORT = {
    "baseline1_paper": f"Baseline 1, α {PAPER_ALPHA:g}",
    "baseline1": "Baseline 1, best α",
    "baseline2": "Baseline 2",
    "student": "Student",
    "shuffled": "Shuffled maps",
    "centre": "Centred map",
    "distilled": "Soft labels",
    "mixed": "Mixed, no Teacher",
    "ceiling": "Ceiling",
}
"""Names that fit an axis, by the key of a `results.Row`, in the order of the tables."""


def short(key: str) -> str:
    """The name of a table's line that fits an axis.

    Example:
        >>> short("student"), short("variant turns")
        ('Student', 'Variant turns')
    """
    return SHORT.get(key) or key[:1].upper() + key[1:]


def colour(key: str) -> str:
    """The class of a line's colour in the stylesheet: variants are Students."""
    return key if key in SHORT else "student"


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Args:
        text: The value.
        note: What stands small beside it.
        best: Whether it is the highest of its column (of its row in a table by source).
    """

    text: str = DASH
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a table: its heading, its cells, and whether it is the Student's."""

    heading: str
    cells: list[Cell]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table for people.

    Args:
        caption: What it shows, in one sentence.
        corner: Heading of the first column.
        columns: Headings of the others.
        lines: The rows.
        sortable: Whether the page offers to sort its rows.
    """

    caption: str
    corner: str
    columns: list[str]
    lines: list[Line]
    sortable: bool = False


def mean_std_text(mean: Any, std: Any) -> str:
    """Mean ± std; the mean alone where one seed gives no spread."""
    if std is None or not math.isfinite(std):
        return number(mean)
    return f"{number(mean)} ± {number(std)}"
