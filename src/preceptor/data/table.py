"""Reading of tables: CSV (comma, semicolon or tab) and Parquet, with row numbers for messages."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsInt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.errors import Problem, ProblemsError, without_secrets

DELIMITERS = (",", ";", "\t")
ROW_FROM_ZERO = "row {} (from 0)".format  # data frames and Parquet have no header row to count
_EMPTY = "the file is empty", "write a header and one row per image"
_RESAVE = "save it as CSV (UTF-8) or Parquet"


class Findings:
    """Problems of one table."""

    def __init__(self, source: str, name_row: Callable[[int], str] = "row {}".format) -> None:
        self.source = source
        self.name_row = name_row
        self._problems: list[tuple[int, Problem]] = []

    def __len__(self) -> int:
        return len(self._problems)

    def name(self, row: SupportsInt) -> str:
        """Name of a row in messages."""
        return self.name_row(int(row))

    @property
    def problems(self) -> list[Problem]:
        """Problems in the order of the rows."""
        return [problem for _, problem in sorted(self._problems, key=lambda pair: pair[0])]

    def add(self, row: SupportsInt | None, what: str, fix: str, where: str = "the table") -> None:
        """Note a problem of a row, or of `where` if it does not belong to one row."""
        number = -1 if row is None else int(row)
        where = where if row is None else self.name(row)
        self._problems.append((number, Problem(where, without_secrets(what), fix)))

    def raise_if_any(self) -> None:
        """Raise an error with all problems, if there are any."""
        if self._problems:
            raise ProblemsError(self.source, self.problems)


@dataclass(frozen=True)
class RawTable:
    """Table with uninterpreted cells."""

    frame: pd.DataFrame  # Cells, one column per header cell; index 0..n-1
    rows: NDArray[np.int64]  # Number of each row in messages


def read_table(path: Path, findings: Findings, header: list[str] | None = None) -> RawTable:
    """Read a CSV or Parquet file; rows with a wrong number of cells are noted and omitted."""
    try:
        if path.is_char_device():  # /dev/zero never ends
            raise _alone(findings, "it is a device", "name a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise _alone(findings, "there is no such file", "correct the path") from None
    except IsADirectoryError:
        raise _alone(findings, "it is a folder", "name the manifest file in it") from None
    except (OSError, ValueError) as error:
        raise _alone(findings, f"cannot be read ({error})", "check the path") from None
    if not data.strip():
        raise _alone(findings, *_EMPTY)
    if data.startswith(b"PAR1"):
        return _read_parquet(data, findings)
    if path.suffix.lower() in (".parquet", ".pq"):
        raise _alone(findings, "not a Parquet file", "write it again")
    return read_csv(_decode(data, findings), findings, header)


def _alone(findings: Findings, what: str, fix: str) -> ProblemsError:
    return ProblemsError(findings.source, [Problem("the file", what, fix)])


def _read_parquet(data: bytes, findings: Findings) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _refuse_repeated([str(name) for name in file.schema_arrow.names], findings)
        table = file.read()
        table.validate(full=True)
        frame = table.to_pandas().reset_index(drop=True)
    except ProblemsError:
        raise
    except Exception as error:  # pyarrow raises ArrowException, OSError, ValueError and others
        reason = " ".join(str(error).split())[:200]
        raise _alone(findings, f"not a sound Parquet file ({reason})", "write it again") from error
    findings.name_row = ROW_FROM_ZERO
    return RawTable(frame, np.arange(len(frame), dtype=np.int64))


def _decode(data: bytes, findings: Findings) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _alone(findings, "the file is UTF-16, not UTF-8", _RESAVE)
    if data.startswith(b"PK\x03\x04"):
        raise _alone(findings, "the file is a workbook or archive, not text", _RESAVE)
    if (zero := data.find(b"\0")) >= 0:
        raise _alone(findings, f"the file is binary (a zero byte at {zero:,})", _RESAVE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        byte = data[error.start]
        what = f"not UTF-8 (byte 0x{byte:02x} at position {error.start:,} of the file)"
        findings.add(row, what, _RESAVE)
        raise ProblemsError(findings.source, findings.problems) from None


def read_csv(text: str, findings: Findings, header: list[str] | None = None) -> RawTable:
    """Parse CSV text into cells, all of them strings."""
    first = re.search(r"\S[^\r\n]*", text)
    records, rows = _parse(text, sniff_delimiter(first[0]) if first else ",", findings)
    if not records:
        raise _alone(findings, *_EMPTY)
    if header is None:
        header = [cell.strip() for cell in records.pop(0)]
        rows.pop(0)
    _refuse_repeated(header, findings)
    width = len(header)
    whole: list[tuple[int, list[str]]] = []
    for row, record in zip(rows, records, strict=True):
        if len(record) == width:
            whole.append((row, record))
            continue
        cells = f"{len(record)} cell{'s' if len(record) != 1 else ''}"
        fix = "fill the row, and quote cells that contain the delimiter"
        findings.add(row, f"has {cells} where {width} are expected", fix)
    if not whole:
        if not len(findings):
            findings.add(None, "there are no rows under the header", "add one row per image")
        findings.raise_if_any()
    columns = zip(*(record for _, record in whole), strict=True)
    frame = pd.DataFrame(dict(zip(header, map(list, columns), strict=True)), dtype="str")
    return RawTable(frame, np.array([row for row, _ in whole], np.int64))


def sniff_delimiter(line: str) -> str:
    """Most frequent delimiter of a line, outside quotation marks."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)  # the first of equals


def _parse(text: str, delimiter: str, findings: Findings) -> tuple[list[list[str]], list[int]]:
    """Records with the number of their first line, counted from 1; blank lines are omitted."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    records: list[list[str]] = []
    rows: list[int] = []
    begin = 1
    try:
        for record in reader:
            if len(record) > 1 or (record and record[0].strip()):
                records.append(record)
                rows.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        findings.add(begin, f"cannot be parsed ({error})", "check its quotation marks")
        findings.raise_if_any()
    return records, rows


def _refuse_repeated(header: list[str], findings: Findings) -> None:
    for name in dict.fromkeys(name for name in header if header.count(name) > 1):
        what = f"column {name!r} occurs {header.count(name)} times"
        findings.add(None, what, "rename or remove all but one", where="the header")
    findings.raise_if_any()
