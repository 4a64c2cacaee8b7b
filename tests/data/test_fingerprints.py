"""Fingerprints of the files of a manifest, and the index that keeps them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.data.fingerprints import fingerprints
from preceptor.data.manifest import Manifest
from preceptor.errors import ProblemsError
from tests.data.sound_manifest import save
from tests.datasets import rewrite


def test_fingerprints_follow_the_content(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.read(folder / "m.csv")
    cache = folder / "cache" / "index"
    first = fingerprints(manifest, cache=cache)
    assert first.shape == (6, 2)
    assert first["path"].str.fullmatch("[0-9a-f]{32}").all()
    assert first["path"].nunique() == 1  # six equal pictures
    assert first["saliency"].ne("").tolist() == [True, True, False, False, False, False]
    pd.testing.assert_frame_equal(fingerprints(manifest), first)

    save(folder / "images" / "b.png", (9, 7))
    hashed: list[Path] = []
    from preceptor.data import fingerprints as module

    digest = module.location_digest
    seen = lambda path: (hashed.append(Path(path)), digest(path))[1]  # noqa: E731
    monkeypatch.setattr(module, "location_digest", seen)
    second = fingerprints(manifest, cache=cache)
    assert hashed == [folder / "images" / "b.png"]
    assert (first["path"] != second["path"]).tolist() == [False, True] + [False] * 4
    assert not list(cache.parent.rglob("*.tmp"))


@pytest.mark.parametrize("junk", [b"", b"PAR1", b"{}"])
def test_a_damaged_cache_is_made_anew(folder: Path, junk: bytes) -> None:
    manifest = Manifest.read(folder / "m.csv")
    cache = folder / "index"
    cache.mkdir()
    (cache / "0-junk.parquet").write_bytes(junk)
    expected = fingerprints(manifest)
    pd.testing.assert_frame_equal(fingerprints(manifest, cache=cache), expected)
    (new,) = set(cache.iterdir()) - {cache / "0-junk.parquet"}
    assert len(pd.read_parquet(new)) == 8


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path) -> None:
    manifest = Manifest.read(folder / "m.csv")
    assert len(fingerprints(manifest, cache=folder / "m.csv" / "index")) == 6


def test_files_that_went_away_are_told_at_once(folder: Path) -> None:
    manifest = Manifest.read(folder / "m.csv")
    (folder / "images" / "a.png").unlink()
    (folder / "maps" / "b.png").unlink()
    with pytest.raises(ProblemsError) as caught:
        fingerprints(manifest)
    assert len(caught.value.problems) == 2


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
