"""Arbitrary manifests: cells come back as they were written, or an input error is raised."""

import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from tests.data.sound_manifest import HEADER

quick = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_never_more_than_an_input_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(InputError):
        Manifest.read(tmp_path / "m.csv")


@quick
@given(
    data=st.text(st.sampled_from("ab1.,;\t\"\n\r' /\\\u2028é"), max_size=200), head=st.booleans()
)
@example(data='""', head=False)
def test_arbitrary_text_is_never_more_than_an_input_error(
    tmp_path: Path, data: str, head: bool
) -> None:
    text = f"{HEADER}\n{data}" if head else data
    (tmp_path / "m.csv").write_text(text, encoding="utf-8", newline="")
    with pytest.raises(InputError):
        Manifest.read(tmp_path / "m.csv", need=())


@quick
@given(keep=st.integers(0, 10_000), at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_damaged_parquet_is_never_more_than_an_input_error(
    tmp_path: Path, keep: int, at: int, value: int
) -> None:
    path = tmp_path / "m.parquet"
    buffer = io.BytesIO()
    pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"], "split": "train"}).to_parquet(buffer)
    data = bytearray(buffer.getvalue())
    data[at % len(data)] = value
    path.write_bytes(data[: keep % len(data) + 1])
    with pytest.raises(InputError):
        Manifest.read(path)


cell = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1)
cell = cell.map(str.strip).filter(bool)


@quick
@given(
    rows=st.lists(st.tuples(cell, cell, cell), min_size=2, max_size=6),
    delimiter=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_cells_come_back_as_they_were_written(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str, quoting: Any
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting)
    writer.writerow(["path", "label", "split", "source", "extra"])
    for index, (label, source, extra) in enumerate(rows):
        (tmp_path / f"{index}.png").touch()
        writer.writerow([f"{index}.png", label, "train", source, extra])
    path = tmp_path / "m.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    table = Manifest.read(path, verify=False, need=()).table
    assert list(zip(table["label"], table["source"], table["extra"], strict=True)) == rows
