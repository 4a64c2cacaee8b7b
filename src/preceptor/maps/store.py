"""Map store: a Teacher's maps for a manifest, as Parquet shards.

One row per image: `path` (as in the manifest), `height` and `width` of the grid, `map` (float16,
row-major, min-max normalized; probabilities of a mark for method cells), `class` of the map,
`score` (probability of that class). Optional column: `error` (float32, for RISE: 1 − estimated
correlation of the map with its limit). The metadata contains the Teacher, the method and the part
of the image that the grid covers: the canvas of `side` pixels under `fit`, see `geometry.fit_box`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preceptor.config.settings import Fit
from preceptor.errors import InputError
from preceptor.utils.files import replacing

SHARD_ROWS = 100_000
# Error of a map with as much noise as signal: 1 − the square root of a reliability of ½.
HALF_NOISE = 1 - 0.5**0.5
_KEY = b"preceptor"


def largest_error(tolerance: float) -> float:
    """Largest error of a map that guides; for a tolerance of 0, as much noise as signal."""
    return tolerance or HALF_NOISE


@dataclass(frozen=True)
class StoreInfo:
    """Metadata of a map store."""

    teacher: str  # id of its run, or a name for external maps
    method: str  # cam, gradcam, rise or cells
    fit: Fit
    side: int  # of the canvas that the grid covers
    classes: tuple[str, ...]
    settings: dict[str, float | str]  # of the method; an error above `tolerance` cannot guide


@dataclass(frozen=True)
class MapStore:
    """Map store in memory."""

    info: StoreInfo
    paths: NDArray[np.object_]  # (n,) as in the manifest
    maps: NDArray[np.float16]  # (n, h, w)
    classes: NDArray[np.int32]  # (n,) class of each map, an index into info.classes
    scores: NDArray[np.float32]  # (n,) probability of that class
    # (n,) 1 − estimated correlation of each map with its limit for infinitely many masks.
    error: NDArray[np.float32] | None = None

    @property
    def settled(self) -> NDArray[np.bool_]:
        """(n,) whether the error of each map is within the tolerance of the method."""
        if self.error is None:
            return np.ones(len(self.paths), bool)
        return self.error <= largest_error(float(self.info.settings.get("tolerance", 0)))


def write_store(folder: Path, store: MapStore) -> None:
    """Write a map store as shards of 100,000 rows; each shard is written atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    count, height, width = store.maps.shape
    metadata = {_KEY: json.dumps(asdict(store.info)).encode()}
    written = set()
    for shard, start in enumerate(range(0, max(count, 1), SHARD_ROWS)):
        part = slice(start, min(start + SHARD_ROWS, count))
        size = part.stop - part.start
        packed = np.ascontiguousarray(store.maps[part]).tobytes()
        columns = {
            "path": pa.array(store.paths[part], pa.string()),
            "height": pa.array(np.full(size, height, np.int16)),
            "width": pa.array(np.full(size, width, np.int16)),
            "map": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(height * width * 2), size, [None, pa.py_buffer(packed)]
            ),
            "class": pa.array(store.classes[part].astype(np.int32)),
            "score": pa.array(store.scores[part].astype(np.float32)),
        }
        if store.error is not None:
            columns["error"] = pa.array(store.error[part].astype(np.float32))
        table = pa.table(columns).replace_schema_metadata(metadata)
        target = folder / f"maps-{shard:05d}.parquet"
        with replacing(target) as partial:
            pq.write_table(
                table, partial, compression="zstd", use_dictionary=["height", "width", "class"]
            )
        written.add(target)
    for old in set(folder.glob("maps-*.parquet")) - written:
        old.unlink()


def is_store(folder: Path) -> bool:
    """Whether a folder contains a map store."""
    return next(iter(folder.glob("maps-*.parquet")), None) is not None


def read_store(
    folder: Path, columns: Sequence[str] = ("map", "class", "score", "error")
) -> MapStore:
    """Read a map store."""
    shards = sorted(folder.glob("maps-*.parquet"))
    if not shards:
        raise InputError(f"{folder} is not a map store: it has no maps-*.parquet")
    try:
        tables = [_read(shard, columns) for shard in shards]
        infos = {table.schema.metadata[_KEY] for table in tables}
        if len(infos) != 1:
            raise InputError(f"map store {folder}: the shards are from different Teachers")
        values = json.loads(infos.pop())
        table = pa.concat_tables(tables)
        info = StoreInfo(**(values | {"classes": tuple(values["classes"])}))
        maps = _maps(table) if "map" in columns else np.zeros((0, 0, 0), np.float16)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise InputError(f"map store {folder}: damaged: {error}") from error
    return MapStore(
        info,
        table["path"].to_numpy(zero_copy_only=False),
        maps,
        table["class"].to_numpy() if "class" in columns else np.zeros(0, np.int32),
        table["score"].to_numpy() if "score" in columns else np.zeros(0, np.float32),
        table["error"].to_numpy() if "error" in table.column_names else None,
    )


def _read(shard: Path, columns: Sequence[str]) -> pa.Table:
    """Read the given columns; the optional `error` is skipped where it is missing."""
    lacks = "error" in columns and "error" not in pq.read_schema(shard).names
    wanted = [name for name in columns if not (lacks and name == "error")]
    return pq.read_table(shard, columns=["path", "height", "width", *wanted])


def _maps(table: pa.Table) -> NDArray[np.float16]:
    """(n, height, width) maps, without a copy of a single chunk."""
    if not len(table):
        return np.zeros((0, 0, 0), np.float16)
    height, width = (table[name][0].as_py() for name in ("height", "width"))
    column = table["map"].cast(pa.binary(2 * height * width))  # other tools write plain binary
    if column.null_count:
        raise ValueError(f"{column.null_count:,} images have no map")
    parts = []
    for chunk in column.chunks:
        flat = np.frombuffer(chunk.buffers()[1], np.float16)[chunk.offset * height * width :]
        parts.append(flat[: len(chunk) * height * width].reshape(len(chunk), height, width))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
