"""The map store: what is written comes back; what is damaged is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor.errors import InputError
from preceptor.maps import store as store_module
from preceptor.maps.store import MapStore, StoreInfo, is_store, read_store, write_store

INFO = StoreInfo("run-1", "cam", "letterbox", 299, ("real", "fake"), {"cam_class": "label"})


def make(count: int, grid: tuple[int, int] = (7, 7), seed: int = 0) -> MapStore:
    generator = np.random.default_rng(seed)
    return MapStore(
        INFO,
        np.array([f"images/train/fake/stylegan2/seed{k:07d}.png" for k in range(count)], object),
        generator.random((count, *grid)).astype(np.float16),
        generator.integers(0, 2, count).astype(np.int32),
        generator.random(count).astype(np.float32),
    )


def assert_equal(one: MapStore, other: MapStore) -> None:
    assert one.info == other.info
    for name in ("paths", "maps", "classes", "scores", "error"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize("grid", [(7, 7), (10, 10), (3, 8), (1, 1)])
def test_round_trip(tmp_path: Path, grid: tuple[int, int]) -> None:
    store = make(9, grid)
    assert not is_store(tmp_path)
    write_store(tmp_path / "deep" / "maps", store)
    assert is_store(tmp_path / "deep" / "maps")
    assert_equal(read_store(tmp_path / "deep" / "maps"), store)


def test_a_smaller_store_replaces_a_larger_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHARD_ROWS", 4)
    write_store(tmp_path, make(11))
    write_store(tmp_path, make(5, seed=1))
    assert_equal(read_store(tmp_path), make(5, seed=1))


def rich(count: int, seed: int = 0) -> MapStore:
    """A store with everything that one may keep."""
    generator = np.random.default_rng(seed + 100)
    return replace(make(count, seed=seed), error=generator.random(count).astype(np.float32))


@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_several_shards_of_everything(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHARD_ROWS", 4)
    store = rich(count)
    write_store(tmp_path, store)
    assert len(list(tmp_path.iterdir())) == max(1, -(-count // 4))
    found = read_store(tmp_path)
    if count:
        assert_equal(found, store)
    assert len(found.paths) == count
    found = read_store(tmp_path, columns=("error",))
    assert not found.maps.size
    np.testing.assert_array_equal(found.error, store.error)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tolerance": 0.05}, [True, True, False, False, False, False]),
        ({"tolerance": 0.3}, [True, True, True, True, False, False]),
        # All masks were asked for, not a perfect map: half of it may be noise.
        ({"tolerance": 0.0}, [True, True, True, False, False, False]),
        ({}, [True, True, True, False, False, False]),
    ],
)
def test_a_map_has_settled_within_the_tolerance(
    tmp_path: Path, settings: dict[str, float], expected: list[bool]
) -> None:
    error = np.array([0, 0.05, 0.29, 0.295, 1, np.nan], np.float32)
    info = replace(INFO, method="rise", settings=settings)
    write_store(tmp_path, replace(make(6), info=info, error=error))
    assert read_store(tmp_path).settled.tolist() == expected
    assert read_store(tmp_path, columns=("error",)).settled.tolist() == expected


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a map store"):
        read_store(tmp_path)
    with pytest.raises(InputError, match="is not a map store"):
        read_store(tmp_path / "nowhere")


def test_damaged_stores(tmp_path: Path) -> None:
    write_store(tmp_path, make(20))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for content in (b"", b"junk", whole[:-1], whole[: len(whole) // 2], whole[100:]):
        file.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            read_store(tmp_path)

    file.write_bytes(whole)
    table = pq.read_table(file)
    metadata = json.loads(table.schema.metadata[b"preceptor"])
    others: list[Any] = [
        None,
        {b"other": b"x"},
        {b"preceptor": b"{"},
        {b"preceptor": b"[]"},
        {b"preceptor": json.dumps(metadata | {"more": 1}).encode()},
        {b"preceptor": json.dumps({"teacher": "t", "classes": []}).encode()},
    ]
    for other in others:
        pq.write_table(table.replace_schema_metadata(other), file)
        with pytest.raises(InputError, match="damaged"):
            read_store(tmp_path)
    at = table.column_names.index("map")
    plain = table["map"].cast(pa.binary())  # as other tools write it
    pq.write_table(table.set_column(at, "map", plain), file)
    assert np.array_equal(read_store(tmp_path).maps, make(20).maps)
    for wrong in (
        pa.chunked_array([[*plain.to_pylist()[:-1], None]]),
        table["path"].cast("binary"),
    ):
        pq.write_table(table.set_column(at, "map", wrong), file)
        with pytest.raises(InputError, match="damaged"):
            read_store(tmp_path)
    pq.write_table(table.drop_columns("map"), file)
    with pytest.raises(InputError, match="damaged"):
        read_store(tmp_path)
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(InputError, match="damaged"):
        read_store(tmp_path)


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_store(ours, make(3))
    write_store(theirs, replace(make(3), info=replace(INFO, teacher="run-2")))
    (theirs / "maps-00000.parquet").rename(ours / "maps-00001.parquet")
    with pytest.raises(InputError, match="different Teachers"):
        read_store(ours)
    write_store(theirs, make(3, grid=(10, 10)))  # the same Teacher at another resolution
    (theirs / "maps-00000.parquet").rename(ours / "maps-00001.parquet")
    with pytest.raises(InputError, match="damaged"):
        read_store(ours)


def test_a_failed_write_leaves_the_old_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path, make(3))

    def full(_: Any, name: str, **__: Any) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(store_module.pq, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        write_store(tmp_path, make(5, seed=1))
    assert_equal(read_store(tmp_path), make(3))
