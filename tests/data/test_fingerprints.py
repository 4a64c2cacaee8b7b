from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.data.fingerprints import fingerprints
from preceptor.data.manifest import Manifest
from tests.datasets import rewrite


def test_a_file_rewritten_with_its_size_and_time_kept_is_another_file(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("L", (8, 8), 0).save(tmp_path / f"{name}.bmp")
    frame = pd.DataFrame({"path": ["a.bmp", "b.bmp"], "label": ["x", "y"]})
    manifest = Manifest.from_frame(frame, tmp_path, need=())
    cache = tmp_path / "index"
    first = fingerprints(manifest, cache=cache)["path"]
    assert fingerprints(manifest, cache=cache)["path"].tolist() == first.tolist()
    rewrite(tmp_path / "a.bmp", 200)
    second = fingerprints(manifest, cache=cache)["path"]
    assert (second != first).tolist() == [True, False]
    assert second.tolist() == fingerprints(manifest)["path"].tolist()
    assert len(pd.read_parquet(cache)) == 2 + 1  # the new entry only


def test_an_index_without_the_time_of_change_is_not_read(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    manifest = Manifest.from_frame(
        pd.DataFrame({"path": ["a.png"], "label": ["x"]}), tmp_path, need=()
    )
    cache = tmp_path / "index"
    cache.mkdir()
    state = (tmp_path / "a.png").stat()
    old = {"path": [str(tmp_path / "a.png")], "size": [state.st_size]}
    frame = pd.DataFrame(old | {"mtime_ns": [state.st_mtime_ns], "digest": ["0" * 32]})
    frame.to_parquet(cache / "0.parquet")
    assert fingerprints(manifest, cache=cache)["path"].tolist() != ["0" * 32]
