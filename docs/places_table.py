"""Table of the sizes and places of marks, with the gain of the place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gallery_pages import marks_of, table

from preceptor.runtime.formatting import number

if TYPE_CHECKING:
    from evidence_tables import Row


def places(rows: Sequence[Row]) -> str:
    """A row for each study."""
    header = [
        "data", "area (median)", "covered by the mark of another image",
        "Student minus the strongest control",
    ]  # fmt: skip
    marks = [marks_of(one.study) for one in rows]
    return table(
        header,
        [
            [one.data, _percent(mark.area), _percent(mark.overlap), one.strongest.text]
            for one, mark in zip(rows, marks, strict=True)
        ],
    )


def _percent(share: float) -> str:
    return f"{number(100 * share, 0 if share >= 0.1 else 1)} %"
