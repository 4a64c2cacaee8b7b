"""Hashes of rows, against a text that is made of all rows at once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from preceptor.data import workspace as row_hashes
from preceptor.data.cache import contents_of
from preceptor.data.manifest import Manifest
from preceptor.data.store import written
from preceptor.data.workspace import RowHashes
from tests.datasets import squares


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = squares(tmp_path / "data")
    table = pd.read_csv(file, keep_default_na=False)
    table["group"] = [f'grüße "{row}"' for row in range(len(table))]
    table["sample_weight"] = np.linspace(0.1, 3, len(table))
    table["map_weight"] = np.linspace(0, 1, len(table))
    table.to_csv(file, index=False)
    return file


def slow(
    manifest: Manifest, rows: NDArray[np.int64], mapped: NDArray[np.bool_] | None, weighted: bool
) -> str:
    contents, table = contents_of(manifest), manifest.table
    hashes = {"path": written(contents.images), "saliency": written(contents.maps)}
    content = b""
    for position, row in enumerate(rows):
        one = table.iloc[row]
        values = [one["name"], hashes["path"][row], one["label"], one["split"], one["source"]]
        values += [one["group"], one["sample_weight"]]
        content += json.dumps(values, ensure_ascii=False, default=float).encode()
        if mapped is not None and mapped[position]:
            content += hashes["saliency"][row].encode()
        if weighted:
            content += np.float64(one["map_weight"]).tobytes()
        content += b"\n"
    return hashlib.blake2b(content, digest_size=10).hexdigest()


@pytest.mark.parametrize("part", [3, 10_000])
@pytest.mark.parametrize(("with_maps", "weighted"), [(False, False), (True, False), (True, True)])
def test_the_hash_is_that_of_the_text_of_all_rows(
    file: Path, monkeypatch: pytest.MonkeyPatch, part: int, with_maps: bool, weighted: bool
) -> None:
    monkeypatch.setattr(row_hashes, "_PART", part)
    manifest = Manifest.read(file)
    rows = np.random.default_rng(0).permutation(len(manifest))[:-2]
    mapped = manifest.map_mask[rows] & (rows % 2 == 0) if with_maps else None
    found = RowHashes(manifest, contents_of(manifest)).of(rows, mapped, weighted=weighted)
    assert found == slow(manifest, rows, mapped, weighted)
