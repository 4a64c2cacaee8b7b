"""Tables of results: columns, types, order of rows and meaning; as CSV files and as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from preceptor.errors import InputError
from preceptor.results.record import archived_aucs, is_archive

MEANINGS: dict[str, str] = {
    "domain": "Name of the domain; only in studies with several.",
    "role": "Purpose of the run: baseline, Teacher, Student, control, ceiling.",
    "backbone": "Backbone, or `overall` for the mean over backbones, seed by seed.",
    "guidance": "Way of guiding of `guidances`; empty for the study's own.",
    "alpha": "α of the guided loss.",
    "teacher": "Teacher whose maps guide the run; empty for others.",
    "seed": "Seed of the study.",
    "set": "Evaluation set.",
    "source": "Source of the images; empty for the whole set. Of rates: the source of the rate.",
    "images": "Number of images.",
    "positives": "Number of images of the positive class.",
    "auc": "Area under the ROC curve; macro average of one-vs-rest AUCs for several classes.",
    "eer": "Equal error rate.",
    "accuracy": "Share of images whose most probable class is right.",
    "average_precision": "Average precision of the positive class.",
    "brier": "Brier score.",
    "run": "Id of the run, the name of its folder in the store.",
    "kind": "Threshold of a rate: fixed on validation, or taken from the ROC curve of the set.",
    "measure": "Rate: eer, tdr, bpcer, apcer, worst_apcer or acer.",
    "at": "Operating point: the FDR for tdr, the APCER for bpcer; empty for others.",
    "value": "Value of the rate, from 0 to 1.",
    "note": "Reason of a missing value.",
    "finished": "Whether the run has finished.",
    "seconds": "Training time in seconds, over all interruptions.",
    "images_seen": "Number of images of all training steps.",
    "best_epoch": "Selected epoch, from 1.",
    "key": "Key of the row of the main table.",
    "title": "Title of the row.",
    "mean": "Mean over seeds.",
    "std": "Standard deviation over seeds.",
    "n": "Number of seeds.",
    "question": "RQ1, RQ2, RQ3, overall, saliency, control, detector, ceiling, variant or start.",
    "a": "Title of the first row of a difference.",
    "b": "Title of the second row, which is subtracted.",
    "key_a": "Key of the first row.",
    "key_b": "Key of the second row.",
    "alpha_a": "α of the first row.",
    "alpha_b": "α of the second row.",
    "low": "Lower end of the 95 % interval of the mean.",
    "high": "Upper end of the 95 % interval of the mean.",
    "p": "p-value of the paired difference.",
    "p_floor": "Smallest p-value that is possible with this number of seeds.",
    "p_holm": "p-value with Holm's correction; empty outside the tested family.",
    "image_low": "Lower end of the interval over seeds and images, by two-level bootstrap.",
    "image_high": "Upper end of the interval over seeds and images, by two-level bootstrap.",
    "seeds_needed": "Number of seeds for an interval of ±0.01, from the observed deviation.",
    "seeds_cautious": "The same from the upper 80 % confidence bound of the deviation.",
    "difference_by_seed": "Difference of each seed, separated by spaces.",
    "primary": "Set of the hypothesis tests of a domain.",
    "student": "Mean AUC of the Student.",
    "student_std": "Standard deviation of the Student's AUC.",
    "baseline": "Mean AUC of the baseline.",
    "baseline_std": "Standard deviation of the baseline's AUC.",
    "rung": "Step of the ladder: no maps, any map, the Teacher's maps, all human maps.",
    "below": "Name of the rung below.",
    "gain": "Mean gain over the rung below.",
    "gain_n": "Number of seeds of the gain.",
    "gain_std": "Standard deviation of the gain.",
    "gain_low": "Lower end of the 95 % interval of the gain.",
    "gain_high": "Upper end of the 95 % interval of the gain.",
    "gain_by_seed": "Gain of each seed, separated by spaces.",
    "line": "Line of the annotation budget: baseline, Student, or the Teacher's maps.",
    "size": "Number of annotated images.",
    "minutes": "Annotation time in minutes, mean over seeds; empty if it is unknown.",
    "by_seed": "Value of each seed, separated by spaces.",
    "seeds": "Seeds of these values, separated by spaces.",
}
"""Meaning by name of the column; a name means the same in every table."""

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


@dataclass(frozen=True, eq=False)
class StudyTables:
    """Tables of a study; `results.columns.MEANINGS` describes their columns.

    In studies with several domains every table has a first column `domain`. Lists of values by seed
    are tuples of numbers.

    Args:
        results: A row per run, evaluation set and source.
        rates: A row per run, test set and error rate.
        runs: A row per run.
        table: Main table: a row per arm and evaluation set.
        comparisons: Paired differences and tests.
        ladder: AUC without maps, with any map, the Teacher's maps and all human maps.
        domains: Comparisons over domains; empty without several.
        budget: Annotation budget; empty without one.
    """

    results: pd.DataFrame
    rates: pd.DataFrame
    runs: pd.DataFrame
    table: pd.DataFrame
    comparisons: pd.DataFrame
    ladder: pd.DataFrame
    domains: pd.DataFrame
    budget: pd.DataFrame


def read(folder: str | Path) -> StudyTables:
    """Tables of a study folder or an archive.

    Args:
        folder: Study folder with a report, or an archive. Of an archive, `results` has the AUC on
            whole sets only, and `rates` is empty, until `preceptor report` has written them.

    Raises:
        InputError: The folder has no results, or a table is damaged.
    """
    folder = Path(folder)
    archived = is_archive(folder)
    if not archived and not (folder / "results.csv").is_file():
        raise InputError(f"{folder} has no results.csv; write it: preceptor report {folder}")
    found = {
        name.removesuffix(".csv"): read_table(folder / name, schema)
        for name, schema in CSV_FILES.items()
    }
    if archived and not (folder / "results.csv").is_file():
        found["results"] = archived_aucs(folder)
    return StudyTables(**found)


def read_table(file: Path, schema: Schema) -> pd.DataFrame:
    """Table of a CSV file with the types of its schema; empty if the file is missing.

    Raises:
        InputError: The file has other columns or values.
    """
    if not file.is_file():
        return schema.empty()
    kinds = {"domain": "text", **schema.columns, **(schema.further or {})}
    try:
        header = pd.read_csv(file, nrows=0).columns
        known = {name: kinds.get(name, "number") for name in header}
        text = {name: str for name, kind in known.items() if kind in ("text", "list")}
        # A source may be called NA: only numbers may be missing.
        missing = {name: ["", "nan"] for name in known if name not in text}
        table = pd.read_csv(file, dtype=text, keep_default_na=False, na_values=missing)
        for name, kind in known.items():
            if kind == "list":
                table[name] = [
                    tuple(float(value) for value in str(cell).split()) for cell in table[name]
                ]
            elif kind == "whole":
                table[name] = table[name].astype("Int64")
            elif kind == "number":
                table[name] = table[name].astype(float)
    except ValueError as error:  # not the columns or the values of the schema
        raise InputError(
            f"{file}: cannot be read as a table of results; write it again: preceptor report"
        ) from error
    return table
