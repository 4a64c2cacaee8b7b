"""Unused shards of a cache are removed, and nothing that a process uses or adds."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.config.image_format import ImageFormat
from preceptor.data import cache_lock, cache_view
from preceptor.data.cache import open_images
from preceptor.data.cache_use import CacheUse, cache_use, remove_unused
from preceptor.data.cache_view import VIEWS, view_uses
from preceptor.data.decode_pass import INDEX, TABLES, DecodePass
from preceptor.data.manifest import Manifest
from preceptor.data.shards import SHARDS
from preceptor.errors import InputError, RunFailedError
from tests.datasets import squares

DAY = 86_400
ROWS = np.arange(8)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Eight images, half of them with maps."""
    return Manifest.read(squares(tmp_path / "data", splits={"train": 4, "val": 2, "test": 2}))


def age(folder: Path, days: float) -> None:
    """Set the times of all files and folders back."""
    for file in [folder, *folder.rglob("*")]:
        if file.name != "use.lock":
            os.utime(file, (time.time() - days * DAY,) * 2)


def shards(use: CacheUse) -> list[tuple[str, int]]:
    return [(one.form, one.images) for one in use.shards]


def test_the_use_of_the_disk_is_that_of_its_files(tmp_path: Path, manifest: Manifest) -> None:
    for side in (16, 24):
        open_images(manifest, side=side, cache_dir=tmp_path / "c")
    use = cache_use(tmp_path / "c")
    assert shards(use) == [("16-squash-3-v3", 8), ("24-squash-3-v3", 8), ("maps-128-v4", 4)]
    files = [file for file in (tmp_path / "c" / SHARDS).rglob("*") if file.is_file()]
    assert sum(one.bytes for one in use.shards) == sum(file.stat().st_size for file in files)
    assert set(use.others) == {VIEWS, INDEX, TABLES}
    assert use.others[VIEWS] > 0
    now = time.time()
    assert all(now - 3600 < one.last <= now + 1 for one in use.shards)


def test_shards_are_removed_when_no_view_was_used_for_so_long(
    tmp_path: Path, manifest: Manifest
) -> None:
    caches = tmp_path / "c"
    for side in (16, 24):
        open_images(manifest, side=side, cache_dir=caches)
    age(caches, 40)
    assert remove_unused(caches, 41) == []
    open_images(manifest, side=24, cache_dir=caches)  # it uses the maps, too
    (removed,) = remove_unused(caches, 30)
    assert (removed.form, removed.images) == ("16-squash-3-v3", 8)
    assert shards(cache_use(caches)) == [("24-squash-3-v3", 8), ("maps-128-v4", 4)]
    assert len(list(view_uses(caches))) == 1
    assert list((caches / SHARDS / "16-squash-3-v3").iterdir()) == []
    assert list(caches.rglob(".*")) == []
    plain = open_images(manifest, side=16, cache_dir=None)
    again = open_images(manifest, side=16, cache_dir=caches)
    np.testing.assert_array_equal(again.canvases(ROWS), plain.canvases(ROWS))


def test_a_process_keeps_the_images_that_it_has_opened(tmp_path: Path, manifest: Manifest) -> None:
    caches = tmp_path / "c"
    opened = open_images(manifest, side=16, cache_dir=caches)
    before = opened.canvases(ROWS).copy()
    maps = opened.human_maps(ROWS).copy()
    age(caches, 40)
    assert len(remove_unused(caches, 30)) == 2
    np.testing.assert_array_equal(opened.canvases(ROWS), before)
    np.testing.assert_array_equal(opened.human_maps(ROWS), maps)


def test_what_was_just_written_is_kept_without_a_view(tmp_path: Path, manifest: Manifest) -> None:
    """A pass that was killed leaves shards, from which the next one goes on."""
    open_images(manifest, side=16, cache_dir=tmp_path / "c")
    age(tmp_path / "c" / VIEWS, 40)
    assert remove_unused(tmp_path / "c", 1) == []
    assert list(view_uses(tmp_path / "c")) == []
    assert len(shards(cache_use(tmp_path / "c"))) == 2


def test_nothing_is_removed_while_a_process_fills_the_cache(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have found shards that no other manifest has used for long."""
    monkeypatch.setattr(cache_lock, "_ATTEMPTS", 1)
    caches = tmp_path / "c"
    open_images(manifest, side=16, cache_dir=caches)
    age(caches, 40)
    images, maps = manifest.table["path"].tolist(), manifest.table["saliency"].tolist()
    with DecodePass(caches, [ImageFormat(16), ImageFormat(24)]) as decoding:
        decoding.decode(images, maps)
        with pytest.raises(RunFailedError, match="a process is filling it"):
            remove_unused(caches, 1)
    assert len(shards(cache_use(caches))) == 3
    assert remove_unused(caches, 1) == []  # the pass has used them


@pytest.mark.parametrize("work", ["_stored", "_resolved"])
def test_nothing_is_removed_while_a_process_looks_up_its_shards(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr(cache_lock, "_ATTEMPTS", 1)
    caches, look_up = tmp_path / "c", getattr(cache_view, work)
    open_images(manifest, side=16, cache_dir=caches)
    age(caches, 40)
    if work == "_resolved":
        shutil.rmtree(caches / VIEWS)
    refused = []

    def meanwhile(*arguments: Any) -> Any:
        with pytest.raises(RunFailedError, match="a process is filling it"):
            remove_unused(caches, 30)
        refused.append(1)
        return look_up(*arguments)

    monkeypatch.setattr(cache_view, work, meanwhile)
    open_images(manifest, side=16, cache_dir=caches)
    assert refused
    assert remove_unused(caches, 30) == []


def test_what_killed_processes_left_is_removed(tmp_path: Path, manifest: Manifest) -> None:
    caches = tmp_path / "c"
    open_images(manifest, side=16, cache_dir=caches)
    (caches / VIEWS / ".a.tmp").mkdir()
    (caches / INDEX / ".b.parquet.1.tmp").write_bytes(b"half")
    (caches / SHARDS / "16-squash-3-v3" / ".c.1.tmp" / "d").mkdir(parents=True)
    remove_unused(caches, 1)
    left = list(caches.rglob(".*"))
    assert len(left) == 3  # a living process may write them
    for file in left:
        age(file, 2)
    remove_unused(caches, 1)
    assert list(caches.rglob(".*")) == []


def test_damaged_shards_and_views_are_counted_and_removed(
    tmp_path: Path, manifest: Manifest
) -> None:
    caches = tmp_path / "c"
    open_images(manifest, side=16, cache_dir=caches)
    for file in [*caches.rglob("digests.npy"), *caches.rglob("view.json")]:
        file.write_bytes(b"")
    assert [count for _, count in shards(cache_use(caches))] == [0, 0]
    age(caches, 40)
    assert len(remove_unused(caches, 30)) == 2


def test_a_folder_without_a_cache_is_refused(tmp_path: Path) -> None:
    for work in (cache_use, lambda folder: remove_unused(folder, 1)):
        with pytest.raises(InputError, match="no image cache; name its folder by --cache-dir"):
            work(tmp_path)
    with pytest.raises(ValueError, match="1 or more"):
        remove_unused(tmp_path, 0)
