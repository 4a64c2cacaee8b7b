"""The image cache: the same bits as decoding, whole or not at all."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from preceptor.config.image_format import ImageFormat
from preceptor.data import cache_fill, decode_pass, shard_writer, shards
from preceptor.data.cache import open_images
from preceptor.data.cache_view import VIEWS, MappedImages
from preceptor.data.decode_pass import DecodePass
from preceptor.data.images import ImageError, decode_map
from preceptor.data.manifest import Manifest
from preceptor.data.map_geometry import resample
from preceptor.data.shards import SHARDS
from preceptor.data.stored_map import MAP_SIDE, on_unit_square, stored_map
from preceptor.errors import InputError, RunFailedError
from preceptor.runtime import replace_file
from tests.commands import HANGS

SIZES = [(40, 30), (30, 40), (64, 20), (25, 25), (33, 47)]


def make(folder: Path) -> Manifest:
    """Five images of different sizes and modes, one turned by EXIF, two with maps."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    rows = []
    for index, (width, height) in enumerate(SIZES):
        pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).convert("L" if index == 3 else "RGB")
        exif = Image.Exif()
        if index == 2:
            exif[0x0112] = 6
        image.save(folder / f"{index}.png", exif=exif)
        saliency = ""
        if index in (1, 4):
            saliency = f"map{index}.png"
            Image.fromarray(pixels[..., 0]).save(folder / saliency)
        rows.append((f"{index}.png", "ab"[index % 2], "train", saliency))
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "saliency"])
    return Manifest.from_frame(frame, folder, need=["train"])


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make(tmp_path / "data")


def shards_of(caches: Path) -> list[Path]:
    """Shards, by format."""
    return sorted((caches / SHARDS).glob("*/*"))


def images_in(shard: Path) -> int:
    """Number of arrays of a shard, as numpy reads it."""
    count = len(np.load(shard / "images.npy", mmap_mode="r"))
    assert len(np.load(shard / "sizes.npy")) == len(np.load(shard / "digests.npy")) == count
    return count


def hidden(caches: Path) -> list[Path]:
    return [one for one in caches.rglob(".*") if one.is_dir()]


ROWS = np.array([3, 1, 4, 1, 0, 2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
def test_the_cache_holds_what_decoding_gives(
    tmp_path: Path, manifest: Manifest, fit: Any, channels: int
) -> None:
    options: dict[str, Any] = {"side": 24, "fit": fit, "channels": channels}
    plain = open_images(manifest, **options, cache_dir=None)
    built = open_images(manifest, **options, cache_dir=tmp_path / "c", threads=3)
    again = open_images(manifest, **options, cache_dir=tmp_path / "c")
    for mapped in (built, again):
        assert isinstance(mapped, MappedImages)
        canvases = mapped.canvases(ROWS)
        assert canvases.shape == (6, 24, 24, channels)
        np.testing.assert_array_equal(canvases, plain.canvases(ROWS))
        maps = mapped.human_maps(ROWS)
        assert maps.shape == (6, MAP_SIDE, MAP_SIDE)
        np.testing.assert_array_equal(maps, plain.human_maps(ROWS))
        assert [bool(one.any()) for one in maps] == [False, True, True, True, False, False]
        np.testing.assert_array_equal(mapped.sizes, plain.sizes)
    upright = [(20, 64) if index == 2 else size for index, size in enumerate(SIZES)]
    assert plain.sizes.tolist() == [list(size) for size in upright]
    assert len(shards_of(tmp_path / "c")) == 2  # images and maps
    assert hidden(tmp_path / "c") == []


def test_maps_are_stretched_and_a_faint_mark_survives(tmp_path: Path) -> None:
    values = np.zeros((200, 200), np.uint16)
    values[10:12, 20:22] = 9
    Image.fromarray(values).save(tmp_path / "faint.png")
    stored = stored_map(decode_map(tmp_path / "faint.png"))
    assert stored.max() == 255
    row, column = divmod(int(stored.argmax()), MAP_SIDE)
    assert 10 / 200 - 1 / MAP_SIDE <= row / MAP_SIDE <= 12 / 200
    assert 20 / 200 - 1 / MAP_SIDE <= column / MAP_SIDE <= 22 / 200


@pytest.mark.parametrize(
    ("ground", "height"), [(0, 60000), (60000, 300), (60000, 100), (30000, 3000), (65000, 255)]
)
def test_a_faint_16_bit_map_keeps_what_a_float_map_keeps(
    tmp_path: Path, ground: int, height: int
) -> None:
    """A bell on a bright ground, against the same file as a map of a folder, which stays float."""
    place = np.linspace(-2, 2, 150)
    bell = np.exp(-(place[:, None] ** 2) - place[None] ** 2)
    Image.fromarray(np.rint(ground + height * bell).astype(np.uint16)).save(tmp_path / "m.png")
    stored = stored_map(decode_map(tmp_path / "m.png")).astype(np.float64) / 255
    raw = torch.from_numpy(decode_map(tmp_path / "m.png")).double()[None]
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    exact = resample(raw, unit, unit, (MAP_SIDE, MAP_SIDE))[0].numpy()
    exact = (exact - exact.min()) / (exact.max() - exact.min())
    assert np.abs(stored - exact).max() <= 0.5 / 255 + 1e-4
    given = on_unit_square(decode_map(tmp_path / "m.png")).astype(np.float64)
    assert np.abs(given / given.max() - exact).max() <= 1e-4


@pytest.mark.parametrize("value", [0, 1, 17, 54321, 65535])
@pytest.mark.parametrize("side", [3, 128, 333])
def test_a_constant_map_is_not_stretched_to_noise(tmp_path: Path, value: int, side: int) -> None:
    Image.fromarray(np.full((side, side), value, np.uint16)).save(tmp_path / "m.png")
    assert not stored_map(decode_map(tmp_path / "m.png")).any()
    assert not on_unit_square(decode_map(tmp_path / "m.png")).any()


def test_a_map_of_the_average_of_fine_stripes_is_not_stretched_to_noise(tmp_path: Path) -> None:
    """Stripes finer than the grid: only the rounding of the means differs from cell to cell."""
    stripes = np.tile(np.array([50000, 50001], np.uint16), (512, 256))
    Image.fromarray(stripes).save(tmp_path / "m.png")
    assert not stored_map(decode_map(tmp_path / "m.png")).any()


@pytest.mark.parametrize("name", ["images.npy", "sizes.npy", "digests.npy"])
@pytest.mark.parametrize("left", [0, 60, 0.9, None])
@pytest.mark.parametrize("kind", ["24", "maps"])
def test_a_shard_whose_file_was_cut_short_is_written_again(
    tmp_path: Path, manifest: Manifest, name: str, left: float | None, kind: str
) -> None:
    plain = open_images(manifest, side=24, cache_dir=None)
    open_images(manifest, side=24, cache_dir=tmp_path / "c")
    before = shards_of(tmp_path / "c")
    (damaged,) = (one for one in before if one.parent.name.startswith(kind))
    cut(damaged / name, left)
    if name != "images.npy":  # the view does not need the others
        shutil.rmtree(tmp_path / "c" / VIEWS)
    found = open_images(manifest, side=24, cache_dir=tmp_path / "c")
    np.testing.assert_array_equal(found.canvases(ROWS), plain.canvases(ROWS))
    np.testing.assert_array_equal(found.human_maps(ROWS), plain.human_maps(ROWS))
    after = shards_of(tmp_path / "c")
    assert len(after) == 2
    assert set(before) - set(after) == {damaged}


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


def cut(file: Path, left: float | None) -> None:
    if left is None:
        file.unlink()
    else:
        os.truncate(file, left if isinstance(left, int) else int(left * file.stat().st_size))


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


def test_no_maps_at_all(tmp_path: Path, manifest: Manifest) -> None:
    bare = Manifest(manifest.table.assign(saliency=""), manifest.root)
    images = open_images(bare, side=16, cache_dir=tmp_path / "c")
    assert not images.human_maps(ROWS).any()


def test_formats_have_shards_of_their_own_and_share_the_maps(
    tmp_path: Path, manifest: Manifest
) -> None:
    def kinds(**options: Any) -> dict[str, int]:
        open_images(manifest, **({"side": 16, "cache_dir": tmp_path / "c"} | options))
        return Counter(one.parent.name.rpartition("-v")[0] for one in shards_of(tmp_path / "c"))

    first = {"16-squash-3": 1, "maps-128": 1}
    assert kinds() == first
    assert kinds() == first
    assert kinds(side=17) == first | {"17-squash-3": 1}
    others = {"17-squash-3": 1, "16-crop-3": 1, "16-squash-1": 1}
    kinds(fit="crop")
    assert kinds(channels=1) == first | others
    for changed, more in (("0.png", "16-squash-3"), ("map4.png", "maps-128")):
        file = manifest.root / changed
        Image.new("L", (33, 47), 90).save(file)
        os.utime(file, ns=(1, 1))
        first[more] += 1
        assert kinds() == first | others


def test_a_changed_image_is_seen(tmp_path: Path, manifest: Manifest) -> None:
    open_images(manifest, side=16, cache_dir=tmp_path / "c")
    Image.new("RGB", SIZES[0], (9, 8, 7)).save(manifest.root / "0.png")
    os.utime(manifest.root / "0.png", ns=(1, 1))
    after = open_images(manifest, side=16, cache_dir=tmp_path / "c")
    assert (after.canvases(np.array([0])) == [9, 8, 7]).all()


def test_too_small_a_disk_is_refused_before_anything_is_written(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=2**40, used=0, free=cache_fill.SPARE_DISK)
    monkeypatch.setattr(cache_fill.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        InputError, match=r"needs 2\d\d MiB, with a reserve, and 256 MiB are free.*none"
    ):
        open_images(manifest, side=600, cache_dir=tmp_path / "c")
    assert shards_of(tmp_path / "c") == hidden(tmp_path / "c") == []


def test_a_disk_that_fills_up_is_told_in_one_line_and_the_rest_is_kept(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_SHARD_BYTES", 2 * 24 * 24 * 3)
    written = []
    write = shard_writer._write

    def full(handle: int, content: bytes) -> None:
        if len(content) == 24 * 24 * 3:
            if len(written) == 3:
                os.write(handle, content[:100])
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(1)
        write(handle, content)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "_write", full)
        with pytest.raises(RunFailedError, match=r"^image cache .*c: No space left on device$"):
            open_images(manifest, side=24, cache_dir=tmp_path / "c", threads=1)
    (kept,) = (one for one in shards_of(tmp_path / "c") if one.parent.name.startswith("24"))
    assert hidden(tmp_path / "c") == []
    found = open_images(manifest, side=24, cache_dir=tmp_path / "c")
    plain = open_images(manifest, side=24, cache_dir=None)
    np.testing.assert_array_equal(found.canvases(ROWS), plain.canvases(ROWS))
    assert kept in shards_of(tmp_path / "c")


def test_a_damaged_image_stops_and_the_rest_is_kept(tmp_path: Path, manifest: Manifest) -> None:
    whole = (manifest.root / "1.png").read_bytes()
    (manifest.root / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"1\.png"):
        open_images(manifest, side=16, cache_dir=tmp_path / "c")
    assert hidden(tmp_path / "c") == []
    assert sum(map(images_in, shards_of(tmp_path / "c"))) == len(SIZES) - 1 + 2
    (manifest.root / "1.png").write_bytes(whole)
    open_images(manifest, side=16, cache_dir=tmp_path / "c")
    assert sum(map(images_in, shards_of(tmp_path / "c"))) == len(SIZES) + 2


# Builders in processes of their own.


def build_together(folder: Path, caches: Path, barrier: Any, answers: Any) -> None:
    manifest = make_again(folder)
    builds = []
    write = cache_fill.CacheFill.__init__

    def counted(*arguments: Any, **options: Any) -> None:
        builds.append(1)
        write(*arguments, **options)

    cache_fill.CacheFill.__init__ = counted  # type: ignore[method-assign]
    barrier.wait()
    images = open_images(manifest, side=24, cache_dir=caches, threads=1)
    answers.put((len(builds), images.canvases(ROWS).tobytes(), images.human_maps(ROWS).tobytes()))


def build_and_die(folder: Path, caches: Path) -> None:
    done = []
    render = cache_fill.render

    def deadly(*arguments: Any) -> Any:
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(1)
        return render(*arguments)

    cache_fill.render = deadly
    open_images(make_again(folder), side=24, cache_dir=caches, threads=1)


def flush_and_die(folder: Path, caches: Path) -> None:
    flush = replace_file._flush

    def deadly(path: Path | str) -> None:
        if Path(path).name == "images.npy":  # the shard is written; the disk takes seconds
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    replace_file._flush = deadly
    open_images(make_again(folder), side=24, cache_dir=caches, threads=1)


def store_and_die(folder: Path, caches: Path) -> None:
    """Ends when it hears of the third file; shards have two images, and nothing is stored late.

    The fourth is not read, so that the thread that reads is not far ahead on a busy machine.
    """
    shards._SHARD_BYTES = 2 * 24 * 24 * 3
    decode_pass._STORED_AFTER = 0
    reading, begun = decode_pass.read_file, []

    def read_three(path: str) -> bytes:
        begun.append(path)
        if len(begun) > 3:
            threading.Event().wait()
        return reading(path)

    decode_pass.read_file = read_three

    def deadly(done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    table = make_again(folder).table
    with DecodePass(caches, [ImageFormat(24)], threads=1) as decoding:
        decoding.decode(table["path"].tolist(), table["saliency"].tolist(), progress=deadly)


def make_again(folder: Path) -> Manifest:
    """The manifest of images that are there already."""
    rows = [
        (f"{index}.png", "ab"[index % 2], "train", f"map{index}.png" if index in (1, 4) else "")
        for index in range(len(SIZES))
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "saliency"])
    return Manifest.from_frame(frame, folder, need=["train"])


@pytest.fixture(scope="module")
def start() -> Callable[..., Any]:
    """Start a function in a new process; one server pays for the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preceptor.data.cache"])

    def run(function: Callable[..., None], *arguments: Any) -> Any:
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    run.context = context  # type: ignore[attr-defined]
    return run


def test_two_builders_make_one_cache(tmp_path: Path, manifest: Manifest, start: Any) -> None:
    barrier, answers = start.context.Barrier(2), start.context.Queue()
    both = [
        start(build_together, manifest.root, tmp_path / "c", barrier, answers) for _ in range(2)
    ]
    found = [answers.get(timeout=HANGS) for _ in both]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sum(builds for builds, _, _ in found) == 1
    assert sum(map(images_in, shards_of(tmp_path / "c"))) == len(SIZES) + 2
    plain = open_images(manifest, side=24, cache_dir=None)
    for _, canvases, maps in found:
        assert canvases == plain.canvases(ROWS).tobytes()
        assert maps == plain.human_maps(ROWS).tobytes()
    assert len(shards_of(tmp_path / "c")) == 2


@pytest.mark.parametrize("die", [build_and_die, flush_and_die])
def test_a_killed_builder_trips_nobody(
    tmp_path: Path,
    manifest: Manifest,
    start: Any,
    monkeypatch: pytest.MonkeyPatch,
    die: Callable[..., None],
) -> None:
    caches = tmp_path / "c"
    process = start(die, manifest.root, caches)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (dead,) = caches.glob(".fill-*.tmp")
    assert shards_of(caches) == []

    # What the dead one reserved is free again before the disk is measured.
    def usage(_: Any) -> SimpleNamespace:
        return SimpleNamespace(free=0 if dead.exists() else 2**40)

    monkeypatch.setattr(cache_fill.shutil, "disk_usage", usage)
    images = open_images(manifest, side=24, cache_dir=caches)
    plain = open_images(manifest, side=24, cache_dir=None)
    np.testing.assert_array_equal(images.canvases(ROWS), plain.canvases(ROWS))
    assert hidden(caches) == []
    assert len(shards_of(caches)) == 2


def test_a_killed_pass_goes_on_where_it_stopped(
    tmp_path: Path, manifest: Manifest, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = tmp_path / "c"
    process = start(store_and_die, manifest.root, caches)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = [one for one in shards_of(caches) if one.parent.name.startswith("24")]
    assert len(kept) >= 1
    assert 2 in map(images_in, kept)
    read: list[str] = []
    original = decode_pass.read_file

    def read_file(path: str) -> bytes:
        read.append(Path(path).name)
        return original(path)

    monkeypatch.setattr(decode_pass, "read_file", read_file)
    images = open_images(manifest, side=24, cache_dir=caches)
    assert not {"0.png", "1.png"} & set(read)
    assert {"2.png", "3.png", "4.png", "map4.png"} <= set(read)  # not stored in the index
    assert set(kept) <= set(shards_of(caches))
    assert sum(map(images_in, shards_of(caches))) == len(SIZES) + 2
    plain = open_images(manifest, side=24, cache_dir=None)
    np.testing.assert_array_equal(images.canvases(ROWS), plain.canvases(ROWS))
    np.testing.assert_array_equal(images.human_maps(ROWS), plain.human_maps(ROWS))
