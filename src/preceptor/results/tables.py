"""Tables of results: columns, types, order of rows and meaning; as CSV files and as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from preceptor.errors import InputError

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
    "steps": "Steps of the training; only where validation selects among several lengths.",
    "trials": "Settings among which validation selected, each trained with every seed.",
    "key": "Key of the row of the main table.",
    "title": "Title of the row.",
    "mean": "Mean over seeds.",
    "std": "Standard deviation over seeds.",
    "n": "Number of seeds.",
    "question": "RQ1, RQ2, RQ3, overall, saliency, control, detector, ceiling, start or guidance.",
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

# Kinds of columns by name; other columns are numbers.
_TEXTS = {
    *("domain", "role", "backbone", "guidance", "teacher", "set", "source", "run", "kind"),
    *("measure", "note", "key", "title", "question", "a", "b", "key_a", "key_b", "primary"),
    *("rung", "below", "line"),
}
_WHOLE = {
    *("seed", "images", "positives", "images_seen", "best_epoch", "n", "gain_n", "size"),
    *("seeds_needed", "seeds_cautious", "steps", "trials"),
}
_LISTS = {"difference_by_seed", "gain_by_seed", "by_seed", "seeds"}


@dataclass(frozen=True)
class Schema:
    """Schema of a table of results."""

    columns: tuple[str, ...]  # of the CSV file, in order
    order: tuple[str, ...] = ()  # columns by which rows are sorted; () keeps their order
    inner: tuple[str, ...] = ()  # further columns that are not in the CSV file
    further: bool = False  # whether there are optional columns, before `tail`
    tail: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()  # columns that are text in this table alone

    def is_text(self, name: str) -> bool:
        """Whether a column is text."""
        return name in _TEXTS or name in self.texts

    def empty(self) -> pd.DataFrame:
        """Empty table."""
        return pd.DataFrame({name: pd.Series(dtype=self._dtype(name)) for name in self.columns})

    def _dtype(self, name: str) -> str:
        if name in _LISTS:
            return "object"
        return "str" if self.is_text(name) else "bool" if name == "finished" else "float64"

    def table(
        self, rows: pd.DataFrame, levels: Mapping[str, Sequence[str]] | None = None
    ) -> pd.DataFrame:
        """Sorted table with the columns of the schema.

        `levels` has the order of values of columns that are not sorted by value; unlisted values
        come last. A missing or an unknown column is a ValueError.
        """
        if rows.empty:
            return self.empty()
        missing = [name for name in self.columns if name not in rows]
        extra = [name for name in rows if name not in self.columns and name not in self.inner]
        if missing or (extra and not self.further):
            raise ValueError(f"table of results: missing columns {missing}, unknown {extra}")
        kept = [name for name in self.inner if name in rows]
        first = [name for name in self.columns if name not in self.tail]
        table = rows[[*first, *extra, *self.tail, *kept]]
        if not self.order:
            return table
        keys = table[list(self.order)].copy()
        for name, values in (levels or {}).items():
            order = list(dict.fromkeys(values))
            inside = keys[name].where(keys[name].isin(order))  # others come last
            keys[name] = pd.Categorical(inside, order, ordered=True)
        return table.loc[keys.sort_values(list(self.order), kind="stable").index]

    def csv(self, table: pd.DataFrame) -> str:
        """Table as CSV: six significant digits, integers as integers, lists with spaces."""
        plain = table.drop(columns=[name for name in self.inner if name in table])
        lists = {name: plain[name].map(_listed) for name in plain if name in _LISTS}
        whole = {name: "Int64" for name in plain if name in _WHOLE}
        text: str = (
            plain.assign(**lists)
            .astype(whole)
            .to_csv(index=False, float_format="%.6g", lineterminator="\n")
        )
        return text


def _listed(values: Any) -> str:
    # Whole, since a seed may have more than six digits.
    return " ".join(f"{v:.0f}" if float(v).is_integer() else f"{v:.6g}" for v in values)


_RUN = ("role", "backbone", "guidance", "alpha", "teacher", "seed")
_PAIRED = (
    *("n", "mean", "std", "low", "high", "p", "p_floor", "p_holm", "image_low", "image_high"),
    *("seeds_needed", "seeds_cautious", "difference_by_seed"),
)
_METRICS = ("accuracy", "eer", "average_precision", "brier")
_SIDES = ("key_a", "key_b", "alpha_a", "alpha_b")

FIGURES = Schema(
    (
        *(*_RUN, "set", "source", "images", "positives"),
        *("auc", "eer", "accuracy", "average_precision", "brier", "run"),
    ),
    order=("set", "source", *_RUN),
    further=True,  # auc_CLASS
    tail=("run",),
)
RATES = Schema(
    (*_RUN, "set", "kind", "measure", "at", "source", "value", "note", "run"),
    order=("set", *_RUN),
    further=True,  # steps
)
RUNS = Schema(
    (*_RUN, "run", "finished", "seconds", "images_seen", "best_epoch"),
    order=_RUN,
    further=True,  # metrics at the selected epoch
)
TABLE = Schema(
    (
        *("key", "title", "backbone", "guidance", "alpha", "steps", "set", "source"),
        *("mean", "std", "n", *_METRICS, "images", "trials", "images_seen"),
    ),
    order=("set", "source", "key", "backbone"),
    inner=("seconds",),  # which no two trainings share
    texts=frozenset({"alpha"}),
)
COMPARISONS = Schema(
    ("question", "backbone", "a", "b", *_SIDES, *_PAIRED), inner=("teacher_a", "teacher_b")
)
DOMAINS = Schema(
    (
        *("domain", "backbone", "b", *_PAIRED, "primary", "images"),
        *("student", "student_std", "baseline", "baseline_std"),
    ),
    inner=(*_SIDES, "teacher_a", "teacher_b"),
)
LADDER = Schema(
    (
        *("backbone", "set", "rung", "key", "title", "guidance", "alpha"),
        *("n", "mean", "std", "low", "high", "below"),
        *("gain_n", "gain", "gain_std", "gain_low", "gain_high", "p", "p_floor", "gain_by_seed"),
    )
)
BUDGET = Schema(
    (
        *("backbone", "line", "size", "minutes", "mean", "std", "low", "high", "n"),
        *("by_seed", "seeds"),
    )
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


def read_table(file: Path, schema: Schema) -> pd.DataFrame:
    """Table of a CSV file with the types of its schema; empty if the file is missing."""
    if not file.is_file():
        return schema.empty()
    try:
        header = [str(name) for name in pd.read_csv(file, nrows=0).columns]
        text = {name: str for name in header if schema.is_text(name) or name in _LISTS}
        # A source may be called NA: only numbers may be missing.
        missing = {name: ["", "nan"] for name in header if name not in text}
        table = pd.read_csv(file, dtype=text, keep_default_na=False, na_values=missing)
        for name in header:
            if name in _LISTS:
                table[name] = [tuple(map(float, str(cell).split())) for cell in table[name]]
            elif name not in text and name != "finished":
                table[name] = table[name].astype("Int64" if name in _WHOLE else float)
    except ValueError as error:  # not the columns or the values of the schema
        raise InputError(
            f"{file}: cannot be read as a table of results; write it again: preceptor report"
        ) from error
    return table
