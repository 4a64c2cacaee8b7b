"""Tables of results have the columns and the order of their schema, and so have their files."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from preceptor.errors import InputError
from preceptor.results.tables import CSV_FILES, MEANINGS, TABLE, Schema, read_table

SMALL = Schema(
    ("set", "seed", "value", "by_seed", "run"),
    order=("set", "seed"),
    inner=("teacher",),
    further=True,
    tail=("run",),
)


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": ["c", "b", "a", "d"],
            "seed": [2, 1, 1, 10],
            "teacher": "t",
            "set": ["val", "test", "val", "other"],
            "images": [3.0, float("nan"), 1e6, 2.0],
            "value": [1 / 3, 2.0, 1e-9, 5.0],
            "by_seed": [[0.5, 1 / 3], [], [1.0], [20240101.0]],
        }
    )


def test_rows_are_sorted_by_stated_orders_and_by_value() -> None:
    table = SMALL.table(rows(), {"set": ["val", "test"]})
    assert list(table["run"]) == ["a", "c", "b", "d"]  # a set that is not listed comes last
    assert list(table.columns) == ["set", "seed", "value", "by_seed", "images", "run", "teacher"]
    assert list(SMALL.table(rows())["run"]) == ["d", "b", "a", "c"]


def test_rows_that_are_equal_keep_their_order() -> None:
    same = rows().assign(set="val", seed=0)
    assert list(SMALL.table(same)["run"]) == ["c", "b", "a", "d"]


def test_the_file_has_six_digits_whole_numbers_and_no_inner_columns() -> None:
    text = SMALL.csv(SMALL.table(rows(), {"set": ["val", "test"]}))
    assert text.splitlines() == [
        "set,seed,value,by_seed,images,run",
        "val,1,1e-09,1,1000000,a",
        "val,2,0.333333,0.5 0.333333,3,c",
        "test,1,2,,,b",
        "other,10,5,20240101,2,d",
    ]


def test_missing_and_unknown_columns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"missing columns \['value'\]"):
        SMALL.table(rows().drop(columns="value"))
    with pytest.raises(ValueError, match=r"unknown \['else'\]"):
        TABLE.table(
            TABLE.table(pd.DataFrame([dict.fromkeys(TABLE.columns, "1")])).assign(**{"else": 1})
        )


@pytest.mark.parametrize("name", sorted(CSV_FILES))
def test_a_table_without_rows_has_its_columns_in_memory_and_in_its_file(name: str) -> None:
    schema = CSV_FILES[name]
    table = schema.table(pd.DataFrame())
    assert list(table.columns) == list(schema.columns)
    assert list(pd.read_csv(io.StringIO(schema.csv(table))).columns) == list(schema.columns)
    assert set(schema.order) <= set(schema.columns)
    assert table.dtypes.equals(schema.empty().dtypes)


def test_every_column_has_a_meaning() -> None:
    columns = {name for schema in CSV_FILES.values() for name in schema.columns}
    assert columns == set(MEANINGS)


def test_text_that_looks_like_a_missing_number_is_text(tmp_path: Path) -> None:
    """A source NA, as of North America, must not become that of the whole set, which is empty."""
    names = ["NA", "None", "nan", "null", "N/A", ""]
    lines = [f"d,student,b,{name},,{name},,0.5,0.5 0.25" for name in names]
    head = "domain,role,backbone,guidance,seed,source,auc,auc_a,by_seed"
    (tmp_path / "results.csv").write_text("\n".join([head, *lines]) + "\n")
    table = read_table(tmp_path / "results.csv", CSV_FILES["results.csv"])
    assert table["source"].tolist() == table["guidance"].tolist() == names
    assert table["auc"].isna().all()
    assert table["auc_a"].tolist() == [0.5] * 6
    assert table["by_seed"].iloc[0] == (0.5, 0.25)
    assert read_table(tmp_path / "runs.csv", CSV_FILES["runs.csv"]).empty
    (tmp_path / "results.csv").write_text("seed,auc\nx,y\n")
    with pytest.raises(InputError, match="cannot be read as a table of results"):
        read_table(tmp_path / "results.csv", CSV_FILES["results.csv"])
