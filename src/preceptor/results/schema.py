"""Schemas of the tables of results: columns, types and order of rows; also of the CSV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

Kind = Literal["text", "number", "whole", "flag", "list"]
"""Of a column: text, a float, a whole number that may be missing, a truth value, a list."""

_DTYPES: dict[Kind, str] = {
    "text": "str",
    "number": "float64",
    "whole": "float64",
    "flag": "bool",
    "list": "object",
}


@dataclass(frozen=True)
class Schema:
    """Schema of a table of results.

    Args:
        columns: Columns of the CSV file in order, with their kinds.
        order: Columns by which rows are sorted; () keeps their order.
        inner: Further columns that are not in the CSV file.
        further: Kinds of optional columns; unlisted ones are numbers. None = no optional columns.
        tail: Columns of `columns` that come after optional ones.
    """

    columns: Mapping[str, Kind]
    order: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    further: Mapping[str, Kind] | None = None
    tail: tuple[str, ...] = ()

    def empty(self) -> pd.DataFrame:
        """Empty table."""
        return pd.DataFrame(
            {name: pd.Series(dtype=_DTYPES[kind]) for name, kind in self.columns.items()}
        )

    def table(
        self, rows: pd.DataFrame, levels: Mapping[str, Sequence[str]] | None = None
    ) -> pd.DataFrame:
        """Sorted table with the columns of the schema.

        Args:
            rows: Rows with columns in any order; may be without columns if empty.
            levels: Order of the values of columns that are not sorted by value. Unlisted values
                come last.

        Raises:
            ValueError: A column is missing, or is not in the schema.
        """
        if rows.empty:
            return self.empty()
        missing = [name for name in self.columns if name not in rows]
        extra = [name for name in rows if name not in self.columns and name not in self.inner]
        if missing or (extra and self.further is None):
            raise ValueError(f"table of results: missing columns {missing}, unknown {extra}")
        kept = [name for name in self.inner if name in rows]
        first = [name for name in self.columns if name not in self.tail]
        found = rows[[*first, *extra, *self.tail, *kept]]
        if not self.order:
            return found
        keys = found[list(self.order)].copy()
        for name, values in (levels or {}).items():
            known = list(dict.fromkeys(values))
            inside = keys[name].where(keys[name].isin(known))  # others come last
            keys[name] = pd.Categorical(inside, known, ordered=True)
        return found.loc[keys.sort_values(list(self.order), kind="stable").index]

    def csv(self, table: pd.DataFrame) -> str:
        """Table as CSV: six significant digits, integers as integers, lists with spaces.

        Args:
            table: Table from `table`; columns before its own (a domain) are kept.
        """
        known = {**self.columns, **(self.further or {})}
        kinds = {name: kind for name, kind in known.items() if name in table}
        lists = {name: table[name].map(_listed) for name, kind in kinds.items() if kind == "list"}
        whole = {name: "Int64" for name, kind in kinds.items() if kind == "whole"}
        plain = table.drop(columns=[name for name in self.inner if name in table])
        text: str = (
            plain.assign(**lists)
            .astype(whole)
            .to_csv(index=False, float_format="%.6g", lineterminator="\n")
        )
        return text


def _listed(values: Any) -> str:
    return " ".join(f"{value:.6g}" for value in values)


_RUN: dict[str, Kind] = {
    "role": "text",
    "backbone": "text",
    "guidance": "text",
    "alpha": "number",
    "teacher": "text",
    "seed": "whole",
}
_PAIRED: dict[str, Kind] = {
    "n": "whole",
    "mean": "number",
    "std": "number",
    "low": "number",
    "high": "number",
    "p": "number",
    "p_floor": "number",
    "p_holm": "number",
    "image_low": "number",
    "image_high": "number",
    "seeds_needed": "whole",
    "seeds_cautious": "whole",
    "difference_by_seed": "list",
}

FIGURES = Schema(
    {
        **_RUN,
        "set": "text",
        "source": "text",
        "images": "whole",
        "positives": "whole",
        "auc": "number",
        "eer": "number",
        "accuracy": "number",
        "average_precision": "number",
        "brier": "number",
        "run": "text",
    },
    order=("set", "source", *_RUN),
    further={},  # auc_CLASS
    tail=("run",),
)
RATES = Schema(
    {
        **_RUN,
        "set": "text",
        "kind": "text",
        "measure": "text",
        "at": "number",
        "source": "text",
        "value": "number",
        "note": "text",
        "run": "text",
    },
    order=("set", *_RUN),
)
RUNS = Schema(
    {
        **_RUN,
        "run": "text",
        "finished": "flag",
        "seconds": "number",
        "images_seen": "whole",
        "best_epoch": "whole",
    },
    order=tuple(_RUN),
    further={"images": "whole"},  # metrics at the kept epoch
)
TABLE = Schema(
    {
        "key": "text",
        "title": "text",
        "backbone": "text",
        "guidance": "text",
        "alpha": "text",
        "set": "text",
        "source": "text",
        "mean": "number",
        "std": "number",
        "n": "whole",
        "accuracy": "number",
        "eer": "number",
        "average_precision": "number",
        "brier": "number",
        "images": "whole",
    },
    order=("set", "source", "key", "backbone"),
)
COMPARISONS = Schema(
    {
        "question": "text",
        "backbone": "text",
        "a": "text",
        "b": "text",
        "key_a": "text",
        "key_b": "text",
        "alpha_a": "number",
        "alpha_b": "number",
        **_PAIRED,
    },
    inner=("teacher_a", "teacher_b", "stopped"),
)
DOMAINS = Schema(
    {
        "domain": "text",
        "backbone": "text",
        "b": "text",
        **_PAIRED,
        "primary": "text",
        "images": "whole",
        "student": "number",
        "student_std": "number",
        "baseline": "number",
        "baseline_std": "number",
    },
    inner=("key_a", "key_b", "alpha_a", "alpha_b", "teacher_a", "teacher_b", "stopped"),
)
LADDER = Schema(
    {
        "backbone": "text",
        "set": "text",
        "rung": "text",
        "key": "text",
        "title": "text",
        "guidance": "text",
        "alpha": "number",
        "n": "whole",
        "mean": "number",
        "std": "number",
        "low": "number",
        "high": "number",
        "below": "text",
        "gain_n": "whole",
        "gain": "number",
        "gain_std": "number",
        "gain_low": "number",
        "gain_high": "number",
        "p": "number",
        "p_floor": "number",
        "gain_by_seed": "list",
    }
)
BUDGET = Schema(
    {
        "backbone": "text",
        "line": "text",
        "size": "whole",
        "minutes": "number",
        "mean": "number",
        "std": "number",
        "low": "number",
        "high": "number",
        "n": "whole",
        "by_seed": "list",
        "seeds": "list",
    }
)

CSV_FILES = {
    "results.csv": FIGURES,
    "rates.csv": RATES,
    "runs.csv": RUNS,
    "table.csv": TABLE,
    "comparisons.csv": COMPARISONS,
    "domains.csv": DOMAINS,
    "budget.csv": BUDGET,
    "ladder.csv": LADDER,
}
"""The schema of each CSV file of a study folder."""
