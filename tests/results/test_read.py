"""Tables of a study folder as data frames, and the meaning of their columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import preceptor.results
from preceptor.errors import InputError
from preceptor.results.tables import CSV_FILES, MEANINGS


def test_every_column_has_a_meaning() -> None:
    columns = {name for schema in CSV_FILES.values() for name in schema.columns}
    assert columns == set(MEANINGS)


def test_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    for name, schema in CSV_FILES.items():
        if name == "budget.csv":
            continue
        dtypes = schema.empty().dtypes
        row = {name: 3 if dtypes[name] == "float64" else "x" for name in schema.columns}
        row |= {name: (0.5, 0.25) for name in row if name.endswith("by_seed") or name == "seeds"}
        row |= {
            name: value for name, value in {"auc": 0.25, "finished": True}.items() if name in row
        }
        (tmp_path / name).write_text(schema.csv(schema.table(pd.DataFrame([row, row]))))
    tables = preceptor.results.read(tmp_path)
    for name, schema in CSV_FILES.items():
        table = getattr(tables, name.removesuffix(".csv"))
        assert list(table.columns) == list(schema.columns)
        assert len(table) == (0 if name == "budget.csv" else 2)
    assert tables.comparisons["difference_by_seed"].iloc[0] == (0.5, 0.25)
    assert tables.comparisons["n"].iloc[0] == 3
    assert tables.results["auc"].iloc[0] == 0.25
    assert bool(tables.runs["finished"].iloc[0]) is True


def test_empty_cells_and_domains(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(
        "domain,role,backbone,guidance,alpha,teacher,seed,set,source,auc,auc_a\n"
        "d,student,b,,0.5,,0,test,,,0.5\n"
    )
    table = preceptor.results.read(tmp_path).results
    assert table["guidance"].tolist() == [""]
    assert table["auc"].isna().all()
    assert table["auc_a"].tolist() == [0.5]


def test_text_that_looks_like_a_missing_number_is_text(tmp_path: Path) -> None:
    """A source NA, as of North America, must not become that of the whole set, which is empty."""
    names = ["NA", "None", "nan", "null", "N/A", ""]
    lines = [f"student,b,{name},0.5,,0,test,{name},0.25" for name in names]
    head = "role,backbone,guidance,alpha,teacher,seed,set,source,auc"
    (tmp_path / "results.csv").write_text("\n".join([head, *lines]) + "\n")
    table = preceptor.results.read(tmp_path).results
    assert table["source"].tolist() == names
    assert table["guidance"].tolist() == names
    assert table["auc"].tolist() == [0.25] * 6


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no results.csv; write it: preceptor report"):
        preceptor.results.read(tmp_path)
    (tmp_path / "results.csv").write_text("seed,auc\nx,y\n")
    with pytest.raises(InputError, match="cannot be read as a table of results"):
        preceptor.results.read(tmp_path)
