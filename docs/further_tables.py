"""Tables of evidence that are made of all archives, by the names of their blocks."""

from __future__ import annotations

from predictor_table import predictor_table
from record_table import record_table


def further_tables() -> dict[str, str]:
    """Each table by the name of its block."""
    return {"records": record_table(), "predictors": predictor_table()}
