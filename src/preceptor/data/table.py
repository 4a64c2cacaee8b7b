"""Reading of manifest files: CSV (comma, semicolon or tab) and Parquet, with row numbers.

This module handles bytes, quotation marks and cells; `manifest_cells` interprets the cells.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, SupportsInt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.errors import Problem, ProblemsError, without_secrets

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = (",", ";", "\t")
ROW_FROM_ZERO = "row {} (from 0)".format  # data frames and Parquet have no header row to count
_RESAVE = "save it as CSV (UTF-8) or Parquet"


class Findings:
    """Problems found in one table.

    Args:
        source: Name of the table in messages.
        name_row: Function that returns the name of a row from its number; rows of a file are
            numbered as in an editor.
    """

    def __init__(self, source: str, name_row: Callable[[int], str] = "row {}".format) -> None:
        self.source = source
        self.name_row = name_row
        self._found: list[tuple[int, Problem]] = []

    def __len__(self) -> int:
        return len(self._found)

    def name(self, row: SupportsInt) -> str:
        """Name of a row in messages."""
        return self.name_row(int(row))

    @property
    def problems(self) -> list[Problem]:
        """Problems in the order of the rows."""
        ordered = sorted(self._found, key=lambda found: found[0])  # stable within a row
        return [problem for _, problem in ordered]

    def add(self, row: SupportsInt | None, what: str, fix: str, where: str = "the table") -> None:
        """Note a problem of a row, or of `where` if it does not belong to one row.

        Credentials in URLs are left out.
        """
        what = without_secrets(what)
        if row is None:
            self._found.append((-1, Problem(where, what, fix)))
        else:
            self._found.append((int(row), Problem(self.name(row), what, fix)))

    def raise_if_any(self) -> None:
        """Raise an error with all problems, if there are any.

        Raises:
            ProblemsError: There is at least one problem.
        """
        if self._found:
            raise ProblemsError(self.source, self.problems)


@dataclass(frozen=True)
class RawTable:
    """Table with uninterpreted cells.

    Args:
        frame: Cells, one column per header cell; index 0..n-1.
        rows: Number of each row in messages.
    """

    frame: pd.DataFrame
    rows: NDArray[np.int64]


def read_table(path: Path, findings: Findings, header: list[str] | None = None) -> RawTable:
    """Read a CSV or Parquet file; rows with a wrong number of cells are noted and omitted.

    Args:
        path: File. Parquet is recognized by its first bytes, independently of its name.
        findings: Collects the problems; those that prevent further reading are raised.
        header: Column names of a CSV file without a header row.

    Raises:
        ProblemsError: The file is missing, empty, binary, not UTF-8 or unreadable, or has duplicate
            column names.
    """
    try:
        if path.is_char_device() or path.is_block_device():  # /dev/zero never ends
            raise _alone(findings, "it is a device", "name a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise _alone(findings, "there is no such file", "correct the path") from None
    except IsADirectoryError:
        raise _alone(findings, "it is a folder", "name the manifest file in it") from None
    except (OSError, ValueError) as error:
        raise _alone(findings, f"cannot be read ({error})", "check the path") from None
    if not data.strip():
        raise _alone(findings, "the file is empty", "write a header and one row per image")
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
        table.validate(full=True)  # text that is UTF-8, numbers of categories that are there
        frame = _with_text(table).to_pandas().reset_index(drop=True)
    except ProblemsError:
        raise
    except Exception as error:  # pyarrow raises ArrowException, OSError, ValueError and others
        reason = " ".join(str(error).split())[:200]
        raise _alone(findings, f"not a sound Parquet file ({reason})", "write it again") from error
    findings.name_row = ROW_FROM_ZERO
    return RawTable(frame, np.arange(len(frame), dtype=np.int64))


def _with_text(table: pa.Table) -> pa.Table:
    """Decode byte columns as UTF-8, since some programs write text as bytes."""
    import pyarrow as pa
    import pyarrow.types as kinds

    for index, field in enumerate(table.schema):
        kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
        if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind):
            with contextlib.suppress(pa.ArrowInvalid):
                text = table.column(index).cast(kind).cast(pa.string())
                table = table.set_column(index, field.name, text)
    return table


def _decode(data: bytes, findings: Findings) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _alone(findings, "the file is UTF-16, not UTF-8", _RESAVE)
    if data.startswith(b"PK\x03\x04"):
        raise _alone(findings, "the file is a workbook or archive, not text", _RESAVE)
    if (zero := data.find(b"\0")) >= 0:
        raise _alone(findings, f"the file is binary (a zero byte at {zero:,})", _RESAVE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    start = 0
    for row, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            what = f"not UTF-8 (byte 0x{byte:02x} at position {start + error.start:,} of the file)"
            findings.add(row, what, "save the file with UTF-8 encoding")
        start += len(line)
    findings.raise_if_any()
    raise AssertionError("a line that is not UTF-8 must have been found")


def read_csv(text: str, findings: Findings, header: list[str] | None = None) -> RawTable:
    """Parse CSV text into cells, all of them strings.

    Args:
        text: Text of the file.
        findings: Collects the problems.
        header: Column names of a text without a header row.

    Raises:
        ProblemsError: A quotation mark is not closed, column names are duplicate, or there are no
            rows.
    """
    first = re.search(r"\S[^\r\n]*", text)
    if first is None:
        raise _alone(findings, "the file is empty", "write a header and one row per image")
    delimiter = sniff_delimiter(first[0])
    plain = _parse_plain(text, delimiter, header)
    if plain is not None:
        _refuse_repeated(list(plain.frame.columns), findings)
        return plain
    records, rows = _parse(text, delimiter, findings)
    if not records:  # nothing but blank cells, as in a file that holds ""
        raise _alone(findings, "the file is empty", "write a header and one row per image")
    if header is None:
        header = [cell.strip() for cell in records[0]]
        records, rows = records[1:], rows[1:]
    _refuse_repeated(header, findings)
    width = len(header)
    if not all(len(record) == width for record in records):
        whole = np.fromiter((len(record) == width for record in records), bool, len(records))
        for index in np.flatnonzero(~whole):
            cells = len(records[index])
            findings.add(
                rows[index],
                f"has {cells} cell{'s' if cells != 1 else ''} where {width} are expected",
                "fill the row, and quote cells that contain the delimiter",
            )
        records = [record for record, keep in zip(records, whole, strict=True) if keep]
        rows = rows[whole]
    if not records:
        if not len(findings):
            findings.add(None, "there are no rows under the header", "add one row per image")
        findings.raise_if_any()
    columns = dict(zip(header, map(list, zip(*records, strict=True)), strict=True))
    return RawTable(pd.DataFrame(columns, dtype="str"), rows)


def sniff_delimiter(line: str) -> str:
    """Most frequent delimiter of a line, outside quotation marks.

    Example:
        >>> sniff_delimiter('path;label;"a,b,c,d"')
        ';'
    """
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)  # the first of equals


def _parse_plain(text: str, delimiter: str, header: list[str] | None) -> RawTable | None:
    """Table of a text without quotation marks, read faster; None if `_parse` must read it.

    Nothing that the readers treat differently is accepted: blanks at the start of a cell, blank
    lines, carriage returns within a line, rows of another length.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if (
        any(sign in text for sign in ('"', f"{delimiter} ", "\n ", "\n\n", "\n\r"))
        or text.count("\r") != text.count("\r\n")
        or text[0].isspace()
        or text.startswith("\ufeff")
    ):
        return None
    first = re.split(r"\r?\n", text, maxsplit=1)[0].split(delimiter)
    names = [str(place) for place in range(len(first))]
    if len(first) < 2 or (header is not None and len(header) != len(first)):
        return None
    begin = 0 if header is not None else 1
    reading = arrow_csv.ReadOptions(use_threads=False, skip_rows=begin, column_names=names)
    parsing = arrow_csv.ParseOptions(
        delimiter=delimiter, quote_char=False, double_quote=False, ignore_empty_lines=False
    )
    converting = arrow_csv.ConvertOptions(
        check_utf8=False,
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=False,
    )
    data = pa.BufferReader(text.encode())
    # In the main thread pyarrow would open a pipe for signals, and a forked process that finds it
    # closed is aborted.
    with ThreadPoolExecutor(1) as other:
        try:
            read = other.submit(arrow_csv.read_csv, data, reading, parsing, converting)
            table = read.result()
        except pa.ArrowInvalid:  # among others, rows of another length
            return None
    if not table.num_rows:
        return None
    frame = table.to_pandas().astype("str")
    frame.columns = pd.Index(header or [cell.strip() for cell in first], dtype="str")
    rows = np.arange(begin + 1, begin + 1 + table.num_rows, dtype=np.int64)
    return RawTable(frame, rows)


def _parse(
    text: str, delimiter: str, findings: Findings
) -> tuple[list[list[str]], NDArray[np.int64]]:
    """Records with the number of their first line, counted from 1; blank lines are omitted."""

    def reader() -> csv._reader:  # type: ignore[name-defined,unused-ignore]
        lines = io.StringIO(text, newline="")
        return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)

    records: list[list[str]] = []
    quick = reader()
    try:
        records = list(quick)
        one_line_each = quick.line_num == len(records)
    except csv.Error:
        one_line_each = False
    if one_line_each:
        rows = np.arange(1, len(records) + 1, dtype=np.int64)
    else:
        records, rows = _parse_with_lines(reader(), findings)
        findings.raise_if_any()  # the text after an open quotation mark cannot be parsed
    filled = np.fromiter((len(r) > 1 or bool(r and r[0].strip()) for r in records), bool)
    if not filled.all():
        records = [record for record, keep in zip(records, filled, strict=True) if keep]
        rows = rows[filled]
    return records, rows


def _parse_with_lines(
    reader: csv._reader,  # type: ignore[name-defined,unused-ignore]
    findings: Findings,
) -> tuple[list[list[str]], NDArray[np.int64]]:
    records: list[list[str]] = []
    rows: list[int] = []
    begins = 1
    while True:
        try:
            records.append(next(reader))
            rows.append(begins)
        except StopIteration:
            return records, np.array(rows, dtype=np.int64)
        except csv.Error as error:
            findings.add(begins, f"cannot be parsed ({error})", "check its quotation marks")
        begins = reader.line_num + 1


def _refuse_repeated(header: list[str], findings: Findings) -> None:
    for name in dict.fromkeys(name for name in header if header.count(name) > 1):
        what = f"column {name!r} occurs {header.count(name)} times"
        findings.add(None, what, "rename or remove all but one", where="the header")
    findings.raise_if_any()
