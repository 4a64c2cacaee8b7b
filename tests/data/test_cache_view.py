"""Views of a cache: rows of a manifest in shards, against a plain array, without private memory."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.data import shards
from preceptor.data.cache import open_images
from preceptor.data.cache_view import VIEWS, MappedImages, open_view
from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.file_contents import FileContents
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import MAP_SIDE
from preceptor.data.shard_writer import ShardWriter
from preceptor.data.shards import ShardFolder, Shards
from tests.data.cached_images import ROWS, cut, make, shards_of

FORM = CanvasFormat(2, channels=1)
IMAGES, MAPS = 60, 20


def hashes(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


def pixels(count: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in shards of 7, maps in shards of 3."""
    (tmp_path / "hidden").mkdir()
    for of, count, most in (
        (ShardFolder.of_images(tmp_path, FORM), IMAGES, 7),
        (ShardFolder.of_maps(tmp_path), MAPS, 3),
    ):
        monkeypatch.setattr(shards, "_SHARD_BYTES", most * of.item_bytes)
        writer = ShardWriter(of, tmp_path / "hidden", count)
        for row, digest in enumerate(hashes(count, most)):
            writer.put(digest.tobytes(), pixels(count, of.shape)[row], (row + 1, 2))
        writer.finish()
    return tmp_path


def contents(rows: NDArray[np.int64]) -> FileContents:
    """Images by number; those that three divides have the map of a third of it."""
    maps = hashes(MAPS, 3)[rows // 3]
    maps[rows % 3 > 0] = 0
    return FileContents.of(hashes(IMAGES, 7)[rows], maps)


def opened(cache: Path, rows: NDArray[np.int64]) -> MappedImages:
    found = open_view(cache, FORM, contents(rows))
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(4))
def test_rows_in_any_order_and_number_are_found(cache: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, IMAGES, 100)
    all_images, all_maps = pixels(IMAGES, FORM.shape), pixels(MAPS, (MAP_SIDE, MAP_SIDE))
    for _ in range(2):  # resolved, and then stored
        view = opened(cache, rows)
        np.testing.assert_array_equal(view.sizes, np.stack([rows + 1, np.full(100, 2)], axis=1))
        for batch in (np.arange(0), np.array([5]), generator.integers(0, 100, 32)):
            np.testing.assert_array_equal(view.canvases(batch), all_images[rows[batch]])
            expected = all_maps[rows[batch] // 3] * (rows[batch] % 3 == 0)[:, None, None]
            np.testing.assert_array_equal(view.human_maps(batch), expected)


def test_a_view_lists_only_its_shards_and_is_valid_while_they_are_there(cache: Path) -> None:
    of = ShardFolder.of_images(cache, FORM)
    rows = np.arange(14)
    view = opened(cache, rows)
    used = {name for name, _ in view.images.shards}
    assert len(used) == 2
    unused = next(name for name in of.read().names if name not in used)
    (of.folder / unused / "images.npy").unlink()
    assert open_view(cache, FORM, contents(rows)) is not None
    (of.folder / used.pop() / "images.npy").unlink()
    assert open_view(cache, FORM, contents(rows)) is None


def test_an_unknown_content_has_no_view(cache: Path) -> None:
    known = contents(np.arange(9))
    for images, maps in (
        (np.vstack([known.images[:8], hashes(1, 99)]), known.maps),
        (known.images, np.vstack([hashes(1, 99), known.maps[1:]])),
    ):
        assert open_view(cache, FORM, FileContents.of(images, maps)) is None
    assert not (cache / VIEWS).exists()


def test_a_stored_view_takes_no_memory_for_its_rows(cache: Path) -> None:
    """16 bytes a row are allowed; what is mapped is shared by the processes."""
    rows = np.random.default_rng(0).integers(0, IMAGES, 50_000)
    known = contents(rows)
    assert open_view(cache, FORM, known) is not None  # stores it
    tracemalloc.start()
    view = open_view(cache, FORM, known)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert view is not None
    assert taken < len(rows)
    for array in (view.sizes, view.images.places, view.maps.places):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_a_shard_that_is_removed_while_a_view_is_made_counts_as_absent(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, read = ShardFolder.of_images(cache, FORM), ShardFolder.read

    def read_and_remove(of: ShardFolder) -> Shards:
        found = read(of)
        if of == images:
            shutil.rmtree(of.folder)
        return found

    monkeypatch.setattr(ShardFolder, "read", read_and_remove)
    assert open_view(cache, FORM, contents(np.arange(9))) is None


def test_an_open_view_keeps_no_file_open(cache: Path) -> None:
    files = Path("/proc/self/fd")
    if not files.exists():
        pytest.skip("no /proc here")
    opened(cache, np.arange(9))  # stores it
    before = len(list(files.iterdir()))
    kept = [opened(cache, np.arange(9)) for _ in range(8)]
    assert len(list(files.iterdir())) == before
    np.testing.assert_array_equal(kept[-1].sizes[:, 0], np.arange(9) + 1)


# Views that `open_images` has stored.


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make(tmp_path / "data")


@pytest.mark.parametrize("name", ["places.npy", "map_places.npy", "sizes.npy", "view.json"])
@pytest.mark.parametrize("left", [0, 0.9, None])
def test_a_damaged_view_is_made_again_from_the_shards(
    tmp_path: Path, manifest: Manifest, name: str, left: float | None
) -> None:
    plain = open_images(manifest, side=24, cache_dir=None)
    open_images(manifest, side=24, cache_dir=tmp_path / "c")
    before = shards_of(tmp_path / "c")
    (view,) = (tmp_path / "c" / VIEWS).iterdir()
    cut(view / name, left)
    found = open_images(manifest, side=24, cache_dir=tmp_path / "c")
    np.testing.assert_array_equal(found.canvases(ROWS), plain.canvases(ROWS))
    np.testing.assert_array_equal(found.human_maps(ROWS), plain.human_maps(ROWS))
    assert shards_of(tmp_path / "c") == before


def test_a_folder_without_write_access_is_read(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for rows in an order that has no view there."""
    plain = open_images(manifest, side=24, cache_dir=None)
    open_images(manifest, side=24, cache_dir=tmp_path / "c")
    order = ROWS[::-1][:4]
    other = Manifest(manifest.table.iloc[order].reset_index(drop=True), manifest.root)

    def refused(path: Path, **_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("preceptor.data.cache_view.replacing", refused)  # root may write anywhere
    monkeypatch.setattr("preceptor.data.index_segments.replacing", refused)
    found = open_images(other, side=24, cache_dir=tmp_path / "c")
    np.testing.assert_array_equal(found.canvases(np.arange(4)), plain.canvases(order))
    np.testing.assert_array_equal(found.human_maps(np.arange(4)), plain.human_maps(order))
    assert len(list((tmp_path / "c" / VIEWS).iterdir())) == 1
