"""Rows of predictions: JSON lines, and the tables that are made of them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.errors import InputError
from preceptor.predictor.inputs import BadImage
from preceptor.predictor.prediction import Prediction

Row = dict[str, Any]
"""path, decision, score, probabilities (by class) and map (file), or path and error."""

_GROUP = 50_000  # rows of a row group of a Parquet file


def row_of(name: str, found: Prediction | BadImage, map_file: str | None = None) -> Row:
    """Row of an image.

    Args:
        name: Name of the image.
        found: Prediction, or the reason why there is none.
        map_file: Name of the file of its map, if there are such files.
    """
    # Names of files need not be UTF-8.
    row: Row = {"path": name.encode("utf-8", "backslashreplace").decode()}
    if isinstance(found, BadImage):
        return row | {"error": found.reason}
    shortest = [float(str(value)) for value in found.class_probabilities]
    row |= {
        "decision": found.decision,
        "score": float(str(found.class_probabilities.dtype.type(found.score))),
        "probabilities": dict(zip(found.info.classes, shortest, strict=True)),
    }
    return row if map_file is None else row | {"map": map_file}


def json_line(row: Row) -> str:
    """Row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_rows(file: Path) -> Iterator[Row]:
    """Rows of a file of JSON lines."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


class Columns:
    """Columns of a table of predictions.

    Args:
        classes: Class names.
        maps: Whether there are files of maps.
    """

    def __init__(self, classes: Sequence[str], *, maps: bool) -> None:
        self._classes = classes
        self._maps = ["map"] if maps else []
        scores = [f"score_{name}" for name in classes]
        self.names = ["path", "decision", "score", *scores, *self._maps, "error"]

    def cells(self, row: Row) -> list[Any]:
        """Cells of a row; None for missing ones."""
        probabilities = row.get("probabilities", {})
        return [
            row["path"],
            row.get("decision"),
            row.get("score"),
            *(probabilities.get(name) for name in self._classes),
            *(row.get(name) for name in self._maps),
            row.get("error"),
        ]


def csv_writer(stream: TextIO, columns: Columns) -> Callable[[Row], object]:
    """Function that writes a row to a CSV stream, whose header is written now."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns.names)
    return lambda row: writer.writerow(columns.cells(row))


def _write_csv(rows: Path, columns: Columns, file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        write = csv_writer(stream, columns)
        for row in read_rows(rows):
            write(row)


def _write_json_lines(rows: Path, _: Columns, file: Path) -> None:
    shutil.copyfile(rows, file)


def _write_parquet(rows: Path, columns: Columns, file: Path) -> None:
    text = {"path", "decision", "map", "error"}
    schema = pa.schema(
        [(name, pa.string() if name in text else pa.float32()) for name in columns.names]
    )
    left = read_rows(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while part := [columns.cells(row) for row in islice(left, _GROUP)]:
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(zip(*part, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


WRITERS: dict[str, Callable[[Path, Columns, Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".parquet": _write_parquet,
    ".pq": _write_parquet,
}
"""Function that writes a table from a file of JSON lines, by the suffix of the table."""


def check_format(out: Path) -> None:
    """Check that the suffix of an output names a format.

    Raises:
        InputError: It does not.
    """
    if out.suffix.lower() not in WRITERS:
        raise InputError(f"--out {out}: unknown format; name it {', '.join(WRITERS)}")
