"""The map store: a Teacher's maps for a manifest, as Parquet shards, quick to write and to read.

One row an image: `path` (as the manifest writes it), `height` and `width` of the grid, `map`
(float16, row by row, min-max normalised), `class` of the map, `score` (that class's probability).
More columns may be there: `probabilities` (a float32 a class of the Teacher, in its order),
`agreement` (float32, how far the members of a committee agree on the map, −1 to 1) and `error`
(float32, of RISE: 1 − the map's estimated correlation with its limit). The metadata says whose maps
these are and which part of the image the grid covers: the canvas of `side` pixels under `fit`, see
`geometry.fit_box`.
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

from preceptor.config.image_format import Fit
from preceptor.errors import InputError
from preceptor.runtime.replace_file import replacing

SHARD_ROWS = 100_000
# What a store need not have: maps from elsewhere may come without.
OPTIONAL = ("probabilities", "agreement", "error")
# Error of a map with as much noise in it as signal: 1 − the root of a reliability of ½.
HALF_NOISE = 1 - 0.5**0.5
_KEY = b"preceptor"


@dataclass(frozen=True)
class StoreInfo:
    """Whose maps a store holds.

    Args:
        teacher: The Teacher's run id, or a name for maps from elsewhere.
        method: cam, gradcam or rise.
        fit, side: The canvas that the grid covers.
        classes: The Teacher's class names; a map's class is one of them.
        settings: Of the method, as JSON-able values; `tolerance` says above which error a map has
            not settled.
    """

    teacher: str
    method: str
    fit: Fit
    side: int
    classes: tuple[str, ...]
    settings: dict[str, float | str]


@dataclass(frozen=True)
class MapStore:
    """A store in memory.

    Args:
        info: Whose maps these are.
        paths: (n,) image paths as the manifest writes them.
        maps: (n, h, w) float16.
        classes: (n,) the class of each map, an index into info.classes.
        scores: (n,) its probability.
        probabilities: (n, C) of all the Teacher's classes, as info.classes has them; None = not
            kept.
        agreement: (n,) mean correlation of the maps of a committee's members; None = no committee.
        error: (n,) how far each map may be from the one that endless masks would give; None = the
            method has no such error.
    """

    info: StoreInfo
    paths: NDArray[np.object_]
    maps: NDArray[np.float16]
    classes: NDArray[np.int32]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None
    agreement: NDArray[np.float32] | None = None
    error: NDArray[np.float32] | None = None

    @property
    def settled(self) -> NDArray[np.bool_]:
        """(n,) whether each map is more than noise: its error is within the method's tolerance.

        A tolerance of 0 asks for all masks, which no map survives; then, and where none is named,
        half of the map may be noise.
        """
        if self.error is None:
            return np.ones(len(self.paths), bool)
        return self.error <= (float(self.info.settings.get("tolerance", 0)) or HALF_NOISE)


def write_store(folder: Path, store: MapStore) -> None:
    """Write a store as shards of 100,000 rows; each appears whole or not at all.

    Args:
        folder: Made if missing; shards of an earlier store in it are replaced.
        store: The maps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count, height, width = store.maps.shape
    fields = [
        ("path", pa.string()),
        ("height", pa.int16()),
        ("width", pa.int16()),
        ("map", pa.binary(height * width * 2)),
        ("class", pa.int32()),
        ("score", pa.float32()),
    ]
    if store.probabilities is not None:
        fields.append(("probabilities", pa.list_(pa.float32(), len(store.info.classes))))
    if store.agreement is not None:
        fields.append(("agreement", pa.float32()))
    if store.error is not None:
        fields.append(("error", pa.float32()))
    schema = pa.schema(fields, metadata={_KEY: json.dumps(asdict(store.info)).encode()})
    written = set()
    for shard, start in enumerate(range(0, max(count, 1), SHARD_ROWS)):
        part = slice(start, min(start + SHARD_ROWS, count))
        size = part.stop - part.start
        packed = np.ascontiguousarray(store.maps[part]).tobytes()
        arrays = [
            pa.array(store.paths[part], pa.string()),
            pa.array(np.full(size, height, np.int16)),
            pa.array(np.full(size, width, np.int16)),
            pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(height * width * 2), size, [None, pa.py_buffer(packed)]
            ),
            pa.array(store.classes[part].astype(np.int32)),
            pa.array(store.scores[part].astype(np.float32)),
        ]
        if store.probabilities is not None:
            flat = pa.array(store.probabilities[part].astype(np.float32).ravel())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, len(store.info.classes)))
        if store.agreement is not None:
            arrays.append(pa.array(store.agreement[part].astype(np.float32)))
        if store.error is not None:
            arrays.append(pa.array(store.error[part].astype(np.float32)))
        table = pa.Table.from_arrays(arrays, schema=schema)
        target = folder / f"maps-{shard:05d}.parquet"
        with replacing(target) as partial:
            pq.write_table(
                table, partial, compression="zstd", use_dictionary=["height", "width", "class"]
            )
        written.add(target)
    for old in set(folder.glob("maps-*.parquet")) - written:
        old.unlink()


def is_store(folder: Path) -> bool:
    """Whether a folder holds a map store."""
    return next(iter(folder.glob("maps-*.parquet")), None) is not None


def read_store(
    folder: Path, columns: Sequence[str] = ("map", "class", "score", *OPTIONAL)
) -> MapStore:
    """Read a whole store.

    Args:
        folder: Of the shards.
        columns: What is needed beside the paths; the rest stays unread and empty, or None.

    Raises:
        InputError: No store, a damaged one, or shards that do not belong together.
    """
    shards = sorted(folder.glob("maps-*.parquet"))
    if not shards:
        raise InputError(f"{folder} is not a map store: it holds no maps-*.parquet")
    try:
        tables = [_read(shard, columns) for shard in shards]
        infos = {table.schema.metadata[_KEY] for table in tables}
        if len(infos) != 1:
            raise InputError(f"map store {folder}: its shards come from different Teachers")
        values = json.loads(infos.pop())
        table = pa.concat_tables(tables)
        info = StoreInfo(**(values | {"classes": tuple(values["classes"])}))
        probabilities = _probabilities(table, len(info.classes))
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise InputError(f"map store {folder}: damaged: {error}") from error
    count = len(table)
    height = table["height"][0].as_py() if count else 0
    width = table["width"][0].as_py() if count else 0
    maps = np.zeros((0, height, width), np.float16)
    if "map" in columns and count:
        parts = [_as_array(chunk, height, width) for chunk in table["map"].chunks]
        maps = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return MapStore(
        info,
        table["path"].to_numpy(zero_copy_only=False),
        maps,
        table["class"].to_numpy() if "class" in columns else np.zeros(0, np.int32),
        table["score"].to_numpy() if "score" in columns else np.zeros(0, np.float32),
        probabilities,
        table["agreement"].to_numpy() if "agreement" in table.column_names else None,
        table["error"].to_numpy() if "error" in table.column_names else None,
    )


def _read(shard: Path, columns: Sequence[str]) -> pa.Table:
    """The columns asked for, of the optional ones those that are there."""
    there: list[str] = pq.read_schema(shard).names if set(columns) & set(OPTIONAL) else []
    wanted = [name for name in columns if name not in OPTIONAL or name in there]
    return pq.read_table(shard, columns=["path", "height", "width", *wanted])


def _probabilities(table: pa.Table, classes: int) -> NDArray[np.float32] | None:
    """(n, classes), or None where the column was not read."""
    if "probabilities" not in table.column_names:
        return None
    flat = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(table), classes)


def _as_array(chunk: pa.FixedSizeBinaryArray, height: int, width: int) -> NDArray[np.float16]:
    """The maps of one Parquet chunk without a copy."""
    flat = np.frombuffer(chunk.buffers()[1], np.float16)
    cells = height * width
    start = chunk.offset * cells
    return flat[start : start + len(chunk) * cells].reshape(len(chunk), height, width)
