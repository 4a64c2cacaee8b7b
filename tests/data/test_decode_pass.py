"""One pass over image files: read once, all problems told, and nothing read again unchanged."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data import shards
from preceptor.data.cache import open_images
from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.dead_fills import fill_lock, fill_prefix
from preceptor.data.decode_pass import INDEX, DecodePass
from preceptor.data.file_table import FileTable
from preceptor.data.fingerprints import fingerprints
from preceptor.data.manifest import Manifest
from preceptor.data.shards import SHARDS, ShardFolder
from preceptor.data.workspace import Workspace
from preceptor.errors import ProblemsError
from preceptor.runtime.checksums import content_hash
from preceptor.runtime.file_lock import locked
from tests.datasets import rewrite, squares
from tests.opened import OpenedFiles

Cache = Literal["memmap", "none"]
FORMATS = (ImageFormat(24), ImageFormat(16, "letterbox"), ImageFormat(24, canvas=40))
SPLITS = {"train": 6, "val": 4, "test": 4}


def start(manifest: Path, caches: Path, cache: Cache = "memmap") -> tuple[Any, list[str]]:
    """Open a manifest as the start of a study does: the sizes and pixels that its caches hold."""
    formats = FORMATS if cache == "memmap" else ()
    space = Workspace.open(manifest, caches, verify=True, formats=formats)
    space.hashes.of(space.split_rows("val"))
    held = [space.images(form, cache) for form in FORMATS]
    pixels = [
        sha256(one.canvases(np.arange(len(space.manifest)))).hexdigest()
        for one in held
        if cache == "memmap"
    ]
    return [one.sizes.tolist() for one in held], pixels


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Every image another size; two images share a map, and one map is an image as well."""
    file = squares(tmp_path / "data", splits=SPLITS)
    table = pd.read_csv(file, keep_default_na=False)
    for number, path in enumerate(table["path"]):
        with Image.open(file.parent / path) as image:
            larger = image.resize((32 + number, 32 + number))
        larger.save(file.parent / path)
    mapped = table.index[table["saliency"] != ""]
    table.loc[mapped[1], "saliency"] = table.loc[mapped[0], "saliency"]
    table.loc[mapped[2], "saliency"] = table.loc[0, "path"]
    table.to_csv(file, index=False)
    return file


@pytest.fixture
def opened(manifest: Path, tmp_path: Path) -> OpenedFiles:
    (tmp_path / "hook").mkdir()
    return OpenedFiles(manifest.parent, tmp_path / "hook")


def files_of(manifest: Path) -> set[str]:
    table = pd.read_csv(manifest, keep_default_na=False)
    return {*table["path"], *table["saliency"]} - {""}


@pytest.mark.parametrize("cache", ["memmap", "none"])
def test_each_file_is_opened_once_and_then_never(
    manifest: Path, tmp_path: Path, opened: OpenedFiles, cache: Cache
) -> None:
    first = opened.call(start, manifest, tmp_path / "c", cache)
    counts = opened.take()
    assert counts.pop("manifest.csv")
    assert counts == dict.fromkeys(files_of(manifest), 1)

    assert opened.call(start, manifest, tmp_path / "c", cache) == first
    assert set(opened.take()) == {"manifest.csv"}


def test_a_changed_file_is_noticed_and_no_other_is_read(
    manifest: Path, tmp_path: Path, opened: OpenedFiles
) -> None:
    for name in ("images/train-0.png", "maps/train-1.png"):
        Image.new("L", (8, 8), 0).save(manifest.parent / name, "BMP")
    before = opened.call(start, manifest, tmp_path / "c")
    opened.take()
    # The same size and time of modification, other pixels.
    rewrite(manifest.parent / "images/train-0.png", 200, "BMP")
    after = opened.call(start, manifest, tmp_path / "c")
    assert all(one != other for one, other in zip(before[1], after[1], strict=True))
    assert set(opened.take()) == {"images/train-0.png", "manifest.csv"}


def test_manifests_with_the_same_images_share_them_in_the_cache(
    manifest: Path, tmp_path: Path, opened: OpenedFiles
) -> None:
    first = opened.call(start, manifest, tmp_path / "c")
    opened.take()
    stored = shards_of(tmp_path / "c")
    table = pd.read_csv(manifest, keep_default_na=False)
    other, part = manifest.with_name("other.csv"), manifest.with_name("part.csv")
    table.assign(source="b", group=[f"g{row}" for row in range(len(table))]).to_csv(
        other, index=False
    )
    table[::-1].to_csv(part, index=False)
    assert opened.call(start, other, tmp_path / "c") == first
    assert set(opened.take()) == {"other.csv"}
    # Rows in another order: no image is read.
    sizes, pixels = opened.call(start, part, tmp_path / "c")
    assert set(opened.take()) == {"part.csv"}
    assert [one[::-1] for one in sizes] == first[0]
    assert pixels != first[1]
    assert shards_of(tmp_path / "c") == stored


def test_of_more_rows_only_the_new_images_are_read_and_stored(
    manifest: Path, tmp_path: Path, opened: OpenedFiles
) -> None:
    whole, part = pd.read_csv(manifest, keep_default_na=False), manifest.with_name("part.csv")
    whole.drop(index=[1, 4]).to_csv(part, index=False)
    opened.call(start, part, tmp_path / "c")
    opened.take()
    before = shards_of(tmp_path / "c")
    found = opened.call(start, manifest, tmp_path / "c")
    gone = files_of(part)
    assert set(opened.take()) == {*files_of(manifest) - gone, "manifest.csv"}
    assert set(before) < set(shards_of(tmp_path / "c"))
    assert_stored_once(tmp_path / "c")
    assert found == opened.call(start, manifest, tmp_path / "other")


def test_equal_images_of_several_manifests_are_stored_once(manifest: Path, tmp_path: Path) -> None:
    """Also under other paths, and twice in one manifest."""
    start(manifest, tmp_path / "c")
    before = assert_stored_once(tmp_path / "c")
    copy = tmp_path / "copy"
    shutil.copytree(manifest.parent, copy)
    shutil.copy(copy / "images/train-0.png", copy / "images/again.png")
    table = pd.read_csv(manifest, keep_default_na=False)
    again = table.iloc[:1].assign(path="images/again.png", group="again")
    pd.concat([table, again]).to_csv(copy / "manifest.csv", index=False)
    start(copy / "manifest.csv", tmp_path / "c")
    assert assert_stored_once(tmp_path / "c") == before
    start(copy / "manifest.csv", tmp_path / "d")
    assert assert_stored_once(tmp_path / "d") == before


def test_another_format_reads_one_file_of_each_content(
    manifest: Path, tmp_path: Path, opened: OpenedFiles
) -> None:
    name = "images/again.png"
    shutil.copy(manifest.parent / "images/train-0.png", manifest.parent / name)
    table = pd.read_csv(manifest, keep_default_na=False)
    again = table.iloc[:1].assign(path=name, group="again", saliency="")
    pd.concat([table, again]).to_csv(manifest, index=False)
    opened.call(start, manifest, tmp_path / "c", "none")
    opened.take()
    opened.call(start, manifest, tmp_path / "c")
    assert set(opened.take()) == files_of(manifest) - {name} | {"manifest.csv"}


def shards_of(caches: Path) -> list[Path]:
    return sorted((caches / SHARDS).glob("*/*"))


def assert_stored_once(caches: Path) -> Counter[str]:
    """Number of arrays of each format, of contents that all differ."""
    found: dict[str, list[bytes]] = {}
    for shard in shards_of(caches):
        digests = [one.tobytes() for one in np.load(shard / "digests.npy")]
        found.setdefault(shard.parent.name, []).extend(digests)
    assert all(len(set(digests)) == len(digests) for digests in found.values())
    return Counter({name: len(digests) for name, digests in found.items()})


def test_the_caches_hold_what_decoding_gives(manifest: Path, tmp_path: Path) -> None:
    space = Workspace.open(manifest, tmp_path / "c", verify=True, formats=FORMATS)
    rows = np.arange(len(space.manifest))
    stored = shards_of(tmp_path / "c")
    assert len(stored) == 3 + 1  # of images, and of maps
    for form in FORMATS:
        plain = open_images(space.manifest, side=form.side, fit=form.fit, cache_dir=None)
        held = space.images(form)
        np.testing.assert_array_equal(held.sizes, plain.sizes)
        np.testing.assert_array_equal(held.canvases(rows), plain.canvases(rows))
        np.testing.assert_array_equal(held.human_maps(rows), plain.human_maps(rows))
    assert shards_of(tmp_path / "c") == stored


def test_all_problems_are_told_and_the_other_images_are_kept(
    manifest: Path, tmp_path: Path, opened: OpenedFiles
) -> None:
    """Of images, maps and aspects, as without a cache; and once mended only those are read."""
    sound = {name: (manifest.parent / name).read_bytes() for name in sorted(files_of(manifest))}
    folder = manifest.parent
    whole = (folder / "images/val-0.png").read_bytes()
    (folder / "images/val-0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images/val-2.png").write_bytes(b"")
    (folder / "images/test-1.png").write_bytes(b"junk")
    Image.new("L", (80, 20)).save(folder / "maps/train-1.png")
    with pytest.raises(ProblemsError) as plain:
        Manifest.read(manifest)
    told = []
    for _ in range(2):  # what is wrong is never remembered as sound
        with pytest.raises(ProblemsError) as caught:
            Workspace.open(manifest, tmp_path / "c", verify=True, formats=FORMATS)
        told.append(str(caught.value))
    assert told == 2 * [str(plain.value)]
    assert len(plain.value.problems) == 5  # the map of another aspect serves two images
    assert not list((tmp_path / "c").glob(".*"))
    changed = {name for name in sound if (folder / name).read_bytes() != sound[name]}
    for name in changed:
        (folder / name).write_bytes(sound[name])
    opened.call(start, manifest, tmp_path / "c")
    assert set(opened.take()) == {*changed, "manifest.csv"}
    assert_stored_once(tmp_path / "c")


def test_problems_of_the_table_are_told_with_those_of_its_files(
    manifest: Path, tmp_path: Path
) -> None:
    (manifest.parent / "images/val-0.png").write_bytes(b"junk")
    (manifest.parent / "images/val-1.png").unlink()
    text = manifest.read_text().replace(",test,", ",tset,", 1)
    manifest.write_text(text)
    with pytest.raises(ProblemsError) as plain:
        Manifest.read(manifest)
    with pytest.raises(ProblemsError) as caught:
        Workspace.open(manifest, tmp_path / "c", verify=True, formats=FORMATS)
    assert str(caught.value) == str(plain.value)
    assert len(caught.value.problems) == 3
    assert not (tmp_path / "c" / SHARDS).exists()


def test_a_file_that_was_hashed_is_not_taken_for_a_sound_image(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    (manifest.parent / "images/val-0.png").write_bytes(b"junk")
    fingerprints(Manifest.read(manifest, verify=False), cache=tmp_path / "c" / INDEX)
    with pytest.raises(ProblemsError, match="not an image"):
        Workspace.open(manifest, tmp_path / "c", verify=True)


def test_a_map_that_is_no_image_is_not_taken_for_one(tmp_path: Path) -> None:
    """32-bit integers serve as a map and not as an image; each use is verified for itself."""
    for name, values in (("a", np.zeros((4, 4), np.uint8)), ("b", np.eye(4, dtype=np.int32))):
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    (tmp_path / "c").mkdir()
    with DecodePass(tmp_path / "c") as decoding:
        found = decoding.decode([str(tmp_path / "a.tif")], [str(tmp_path / "b.tif")])
        assert not found.wrong_images
        assert not found.wrong_maps
    with DecodePass(tmp_path / "c") as decoding:
        both = [str(tmp_path / "b.tif")]
        found = decoding.decode(both, both)
    assert set(found.wrong_images) == {0}
    assert "no known scale" in found.wrong_images[0]
    assert not found.wrong_maps


def test_only_the_images_of_a_damaged_shard_are_read_again(
    manifest: Path, tmp_path: Path, opened: OpenedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_SHARD_BYTES", 4 * 24 * 24 * 3)
    first = opened.call(start, manifest, tmp_path / "c")
    opened.take()
    hashes = {one: np.load(one / "digests.npy") for one in shards_of(tmp_path / "c")}
    damaged = next(
        one for one in hashes if one.parent.name.startswith("24") and len(hashes[one]) == 4
    )
    digests = [one.tobytes() for one in hashes[damaged]]
    os.truncate(damaged / "images.npy", 100)
    assert opened.call(start, manifest, tmp_path / "c") == first
    lost = {name for name in files_of(manifest) if digest_of(manifest, name) in digests}
    assert set(opened.take()) == {*lost, "manifest.csv"}
    assert not damaged.exists()
    assert_stored_once(tmp_path / "c")


def digest_of(manifest: Path, name: str) -> bytes:
    return content_hash((manifest.parent / name).read_bytes())


def test_a_folder_that_cannot_be_written_is_done_without_where_no_cache_is_asked_for(
    tmp_path: Path,
) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    (tmp_path / "file").write_text("")
    space = Workspace.open(manifest, tmp_path / "file" / "c", verify=True)
    assert len(space.manifest) == sum(SPLITS.values())


def test_a_pass_removes_what_killed_passes_left_and_nothing_in_use(
    manifest: Path, tmp_path: Path
) -> None:
    """Also that of other tables: a manifest that has changed since has another key."""
    caches = tmp_path / "c"
    names = ("dead", "alive", "unknown")
    folders = {name: caches / f".fill-{name}.{name * 3}.tmp" for name in names}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "images.npy").write_bytes(b"half")
    for name in ("dead", "alive"):
        fill_lock(caches, name).touch()
    with locked(fill_lock(caches, "alive")):
        Workspace.open(manifest, caches, verify=True, formats=FORMATS)
    left = {name for name, folder in folders.items() if folder.exists()}
    assert left == {"alive", "unknown"}
    assert (folders["alive"] / "images.npy").read_bytes() == b"half"


def test_a_file_system_without_locks_has_caches_and_keeps_the_files_of_others(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may fill the cache with the same table at the same time."""
    caches, table = tmp_path / "c", Manifest.read(manifest, verify=False).table
    key = FileTable(table["path"].tolist(), table["saliency"].tolist()).key
    other = caches / f"{fill_prefix(key)}other.tmp"
    other.mkdir(parents=True)

    def refused(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)  # no such file system here
    Workspace.open(manifest, caches, verify=True, formats=FORMATS)
    assert len(ShardFolder.of_images(caches, CanvasFormat.of(FORMATS[0])).read().digests)
    assert other.is_dir()
    monkeypatch.undo()
    shutil.rmtree(caches / SHARDS)
    Workspace.open(manifest, caches, verify=True, formats=FORMATS)
    assert not other.exists()
