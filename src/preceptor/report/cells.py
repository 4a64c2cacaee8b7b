"""Tables of formatted cells, and short names for axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from preceptor.results.rows import added_control_keys
from preceptor.runtime.text import DASH, number
from preceptor.study.config import PAPER_ALPHA

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


def short(key: str) -> str:
    """Short name of a table row for an axis.

    Example:
        >>> short("student"), short("variant blur")
        ('Student', 'Variant blur')
    """
    return SHORT.get(key) or key[:1].upper() + key[1:]


def color(key: str) -> str:
    """Color class of a row in the stylesheet.

    Variants have that of the Student, and controls of plugins that of `mixed`.
    """
    if key in added_control_keys():
        return "mixed"
    return key if key in SHORT else "student"


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
