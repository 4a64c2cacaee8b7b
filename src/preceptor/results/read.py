"""Tables of a study folder as data frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.errors import InputError
from preceptor.results.record import archived_aucs, is_archive
from preceptor.results.schema import CSV_FILES, Schema


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
