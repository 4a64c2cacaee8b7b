"""Images in the rows of a Parquet file, as bytes of encoded files.

The images are the only column of bytes, or of structures with a field `bytes` (as data sets of
Hugging Face have them); of several such columns, one is named: COLUMN/ROW.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.locations.containers import OpenContainer
from preceptor.data.locations.failures import LocationError, container_error, location_error
from preceptor.data.locations.once import Once

if TYPE_CHECKING:
    import pyarrow as pa

# Threads that read neighboring rows share their row group; a few are kept, since rows of several
# files are read at once.
_GROUPS: Once[tuple[object, ...], pa.ChunkedArray] = Once(kept=4)
_TABLES: Once[tuple[object, ...], _Table] = Once(kept=64)


@dataclass(frozen=True, eq=False)
class _Table:
    """Description of a file.

    Args:
        metadata: Metadata of pyarrow.
        columns: Columns with images.
        ends: (g,) number of rows up to the end of each row group.
    """

    metadata: Any
    columns: tuple[str, ...]
    ends: NDArray[np.int64]


def check_cell(container: OpenContainer, name: str) -> tuple[str, int]:
    """Column and row of a name.

    Raises:
        LocationError: There is no such column or row, or the file is damaged.
    """
    table = _table(container)
    column, _, row = name.rpartition("/")
    known = ", ".join(table.columns)
    if not table.columns:
        raise container_error("the Parquet file has no column with the bytes of images")
    if not column and len(table.columns) > 1:
        raise location_error(f"several columns have images ({known})", "name one: ::COLUMN/ROW")
    if column and column not in table.columns:
        raise location_error(f"there is no column {column!r} with images; known: {known}")
    count = int(table.ends[-1]) if len(table.ends) else 0
    if not (row.isascii() and row.isdecimal() and int(row) < count):
        raise location_error(
            f"there is no row {row!r} in the Parquet file; it has 0 to {count - 1:,}"
        )
    return column or table.columns[0], int(row)


def cell_content(container: OpenContainer, name: str) -> bytes:
    """Bytes of the image in a row.

    Raises:
        LocationError: The row has no image, or the file is damaged.
    """
    column, row = check_cell(container, name)
    table = _table(container)
    group = int(np.searchsorted(table.ends, row, side="right"))
    values = _GROUPS.get(
        (*container.key, column, group), lambda: _row_group(container, table, column, group)
    )
    start = int(table.ends[group - 1]) if group else 0
    cell = values[row - start].as_py()
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if content is None:
        raise location_error(f"row {row:,} has no image in the column {column!r}")
    return bytes(content)


def _table(container: OpenContainer) -> _Table:
    return _TABLES.get(container.key, lambda: _described(container))


def _described(container: OpenContainer) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def has_images(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            at = kind.get_field_index("bytes")
            return at >= 0 and has_images(kind.field(at).type)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    try:
        with pq.ParquetFile(container.stream()) as file:
            metadata, schema = file.metadata, file.schema_arrow
    except Exception as error:  # pyarrow raises ArrowException, OSError, ValueError and others
        raise _damaged(error) from error
    counts = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    columns = tuple(field.name for field in schema if has_images(field.type))
    return _Table(metadata, columns, np.cumsum(counts, dtype=np.int64))


def _row_group(container: OpenContainer, table: _Table, column: str, group: int) -> pa.ChunkedArray:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(
            container.stream(), metadata=table.metadata, page_checksum_verification=True
        ) as file:
            return file.read_row_group(group, columns=[column], use_threads=False)[column]
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> LocationError:
    """Error of a file that pyarrow cannot read; that of a request is kept."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocationError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return container_error("the Parquet file is damaged or cut short", "copy it again")
