"""The image cache: the pixels of decoding, read once, and right after a kill at any moment."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data import store
from preceptor.data.cache import CachedImages, contents_of, open_images
from preceptor.data.geometry import MAP_SIDE
from preceptor.data.manifest import Manifest
from preceptor.data.store import Store, stores_of, written
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, ProblemsError, RunFailedError
from preceptor.utils.results import content_hash
from tests import forked
from tests.opened import OpenedFiles

SIZES = [(40, 30), (30, 40), (64, 20), (25, 25), (33, 47)]
ROWS = np.array([3, 1, 4, 1, 0, 2])
FORM = ImageFormat(24)
FORMATS = (FORM, ImageFormat(16, "letterbox"), ImageFormat(24, canvas=40))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Five images of different sizes and modes, one turned by EXIF, two with maps."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for index, (width, height) in enumerate(SIZES):
        pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        exif = Image.Exif()
        if index == 2:
            exif[0x0112] = 6
        image = Image.fromarray(pixels).convert("L" if index == 3 else "RGB")
        image.save(folder / f"{index}.png", exif=exif)
        saliency = f"map{index}.png" if index in (1, 4) else ""
        if saliency:
            Image.fromarray(pixels[..., 0]).save(folder / saliency)
        split = ("train", "val", "test", "train", "train")[index]
        rows.append((f"{index}.png", "ab"[index % 2], split, saliency))
    table = pd.DataFrame(rows, columns=["path", "label", "split", "saliency"])
    table.to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


@pytest.fixture
def manifest(file: Path) -> Manifest:
    return Manifest.read(file, verify=False)


@pytest.fixture
def opened(file: Path, tmp_path: Path) -> OpenedFiles:
    (tmp_path / "hook").mkdir()
    return OpenedFiles(file.parent, tmp_path / "hook")


def start(file: Path, caches: Path) -> dict[str, int]:
    """Open a manifest as a study does; number of arrays in each store."""
    space = Workspace.open(file, caches, verify=True, formats=FORMATS)
    space.hashes.of(space.split_rows("val"))
    for form in FORMATS:
        space.images(form)
    return {one.name: one.count() for one in stores_of(caches, FORMATS)}


WHOLE = {"24-squash-3-v3": 5, "16-letterbox-3-v3": 5, "40-squash-3-v3": 5, "maps-128-v4": 2}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
def test_the_cache_has_what_decoding_gives(
    tmp_path: Path, manifest: Manifest, fit: Any, channels: int
) -> None:
    form, folder = ImageFormat(24, fit, channels), tmp_path / "c"
    plain = open_images(manifest, form, folder, cached=False)
    filled = open_images(manifest, form, folder, workers=3)
    again = open_images(manifest, form, folder)
    for mapped in (filled, again):
        assert isinstance(mapped, CachedImages)
        canvases, maps = mapped.canvases(ROWS), mapped.human_maps(ROWS)
        assert canvases.shape == (6, 24, 24, channels)
        assert maps.shape == (6, MAP_SIDE, MAP_SIDE)
        np.testing.assert_array_equal(canvases, plain.canvases(ROWS))
        np.testing.assert_array_equal(maps, plain.human_maps(ROWS))
        assert [bool(one.any()) for one in maps] == [False, True, True, True, False, False]
        np.testing.assert_array_equal(mapped.sizes, plain.sizes)
    upright = [[20, 64] if index == 2 else list(size) for index, size in enumerate(SIZES)]
    assert plain.sizes.tolist() == upright


def test_each_file_is_opened_once_and_then_never(
    file: Path, tmp_path: Path, opened: OpenedFiles
) -> None:
    assert opened.call(start, file, tmp_path / "c") == WHOLE
    read = opened.take()
    assert {name: read[name] for name in read if name != "m.csv"} == dict.fromkeys(
        [*(f"{index}.png" for index in range(5)), "map1.png", "map4.png"], 1
    )
    assert opened.call(start, file, tmp_path / "c") == WHOLE
    assert set(opened.take()) == {"m.csv"}


def test_only_a_changed_file_is_read_again(file: Path, tmp_path: Path, opened: OpenedFiles) -> None:
    start(file, tmp_path / "c")
    before = Workspace.open(file, tmp_path / "c").contents
    state = (file.parent / "0.png").stat()
    Image.new("RGB", SIZES[0], (9, 8, 7)).save(file.parent / "0.png")
    os.utime(file.parent / "0.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert opened.call(start, file, tmp_path / "c")["24-squash-3-v3"] == 6
    assert set(opened.take()) == {"m.csv", "0.png"}
    after = Workspace.open(file, tmp_path / "c")
    assert (after.images(FORM).canvases(np.array([0])) == [9, 8, 7]).all()
    same = after.contents.images == before.images
    assert same.all(1).tolist() == [False, True, True, True, True]


def test_manifests_with_the_same_images_share_them(file: Path, tmp_path: Path) -> None:
    start(file, tmp_path / "c")
    shutil.copytree(file.parent, tmp_path / "copy")
    shutil.copy(tmp_path / "copy/1.png", tmp_path / "copy/5.png")
    with (tmp_path / "copy/m.csv").open("a", encoding="utf-8") as stream:
        stream.write("5.png,b,train,\n")
    assert start(tmp_path / "copy/m.csv", tmp_path / "c") == WHOLE


def test_all_problems_are_told_and_nothing_is_stored(file: Path, tmp_path: Path) -> None:
    (file.parent / "0.png").write_bytes(b"none")
    content = (file.parent / "1.png").read_bytes()
    (file.parent / "1.png").write_bytes(content[: len(content) // 2])
    Image.new("L", (90, 10)).save(file.parent / "map4.png")
    with pytest.raises(ProblemsError) as caught:
        Workspace.open(file, tmp_path / "c", verify=True, formats=FORMATS)
    told = [str(problem) for problem in caught.value.problems]
    assert [line.partition(":")[0] for line in told] == ["row 2", "row 3", "row 6"]
    assert "truncated" in told[1]
    assert "map 'map4.png' is 90×10, its image 33×47" in told[2]


def test_contents_are_hashes_of_the_files(manifest: Manifest, tmp_path: Path) -> None:
    contents = contents_of(manifest, tmp_path / "c")
    for column, hashes in (("path", contents.images), ("saliency", contents.maps)):
        paths = manifest.table[column]
        expected = [content_hash(Path(path).read_bytes()).hex() if path else "" for path in paths]
        assert written(hashes) == expected
    # A file that was hashed is not taken for a valid image.
    (manifest.root / "0.png").write_bytes(b"none")
    contents_of(manifest, tmp_path / "c")
    with pytest.raises(InputError, match="not an image"):
        open_images(manifest, FORM, tmp_path / "c")
    (manifest.root / "0.png").unlink()
    with pytest.raises(ProblemsError, match="no such file"):
        contents_of(manifest, tmp_path / "c")


KILLED = """
import os, signal, sys
from pathlib import Path
from preceptor.config.settings import ImageFormat
from preceptor.data import store
from preceptor.data.workspace import Workspace
calls = 0
def dying(name, function):
    def call(*arguments):
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            if name == "_write":  # half of a write
                os.write(arguments[0].fileno(), arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
store._STORED_BYTES = 0  # stored after each part
store._write = dying("_write", store._write)
store.remember = dying("remember", store.remember)
os.fsync = dying("fsync", os.fsync)
Workspace.open(Path(sys.argv[1]), Path(sys.argv[2]), verify=True, formats=[ImageFormat(24)])
"""


@pytest.mark.parametrize("moment", [1, 3, 8, 15])
def test_a_killed_process_leaves_a_cache_that_goes_on(
    file: Path, manifest: Manifest, tmp_path: Path, moment: int
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    arguments = [tmp_path / "killed.py", file, tmp_path / "c", moment]
    assert forked.run(forked.script, arguments).returncode == -signal.SIGKILL
    plain = open_images(manifest, FORM, tmp_path / "c", cached=False)
    space = Workspace.open(file, tmp_path / "c", verify=True, formats=[FORM])
    images = space.images(FORM)
    np.testing.assert_array_equal(images.canvases(ROWS), plain.canvases(ROWS))
    np.testing.assert_array_equal(images.human_maps(ROWS), plain.human_maps(ROWS))
    assert Store.of(tmp_path / "c", FORM).count() == 5


def test_two_processes_fill_one_cache(file: Path, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "filled.py").write_text(KILLED.replace("calls == int", "calls == -int"))
    arguments = [tmp_path / "filled.py", file, tmp_path / "c", 1]
    both = [forked.Forked(forked.script, arguments) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    images = open_images(manifest, FORM, tmp_path / "c")
    plain = open_images(manifest, FORM, tmp_path / "c", cached=False)
    np.testing.assert_array_equal(images.canvases(ROWS), plain.canvases(ROWS))
    assert Store.of(tmp_path / "c", FORM).count() == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b"junk"),
    ],
)
@pytest.mark.parametrize(
    "name", ["24-squash-3-v3.pixels", "24-squash-3-v3.entries", "files.sqlite"]
)
def test_what_is_damaged_is_made_again(
    file: Path, tmp_path: Path, manifest: Manifest, name: str, damage: Callable[[Path], None]
) -> None:
    start(file, tmp_path / "c")
    damage(tmp_path / "c" / name)
    start(file, tmp_path / "c")
    images = open_images(manifest, FORM, tmp_path / "c")
    plain = open_images(manifest, FORM, tmp_path / "c", cached=False)
    np.testing.assert_array_equal(images.canvases(ROWS), plain.canvases(ROWS))


def test_too_small_a_disk_is_refused_before_anything_is_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9, store.SPARE_DISK)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"MiB more do not fit on the disk; free some, or choose"):
        start(file, tmp_path / "c")
    assert not list((tmp_path / "c").glob("*.pixels"))


def test_a_disk_that_fills_up_is_one_line_and_the_rest_is_kept(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store._write
    left = iter(range(12))

    def full(stream: Any, data: memoryview) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(stream, data)

    with monkeypatch.context() as filled:
        filled.setattr(store, "_write", full)
        with pytest.raises(RunFailedError, match=r"^image cache .*: No space left on device$"):
            start(file, tmp_path / "c")
    assert start(file, tmp_path / "c") == WHOLE


def test_a_folder_without_write_access(file: Path, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("no folder")
    assert len(Manifest.read(file, cache_dir=tmp_path / "c")) == 5
    with pytest.raises(RunFailedError, match="image cache"):
        Workspace.open(file, tmp_path / "c", verify=True, formats=[FORM])
