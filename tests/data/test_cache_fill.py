"""Filling of the image cache: whole or not at all, once, and on where it stopped."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from preceptor.config.settings import ImageFormat
from preceptor.data import (
    cache_fill,
    cache_writers,
    file_parts,
    file_reading,
    shard_writer,
    shards,
)
from preceptor.data.cache import open_images
from preceptor.data.cache_view import VIEWS
from preceptor.data.decode_pass import DecodePass
from preceptor.data.images import ImageError
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, RunFailedError
from preceptor.runtime import replace_file
from tests.commands import HANGS
from tests.data.cached_images import (
    ROWS,
    SIZES,
    cut,
    hidden,
    images_in,
    make,
    make_again,
    shards_of,
)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make(tmp_path / "data")


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
    render = cache_writers.render

    def deadly(*arguments: Any) -> Any:
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(1)
        return render(*arguments)

    cache_writers.render = deadly
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
    file_reading._STORED_AFTER = 0
    reading, begun = file_parts.read_file, []

    def read_three(path: str) -> bytes:
        begun.append(path)
        if len(begun) > 3:
            threading.Event().wait()
        return reading(path)

    file_parts.read_file = read_three

    def deadly(done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    table = make_again(folder).table
    with DecodePass(caches, [ImageFormat(24)], workers=1) as decoding:
        decoding.decode(table["path"].tolist(), table["saliency"].tolist(), progress=deadly)


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
    original = file_parts.read_file

    def read_file(path: str) -> bytes:
        read.append(Path(path).name)
        return original(path)

    monkeypatch.setattr(file_parts, "read_file", read_file)
    images = open_images(manifest, side=24, cache_dir=caches)
    assert not {"0.png", "1.png"} & set(read)
    assert {"2.png", "3.png", "4.png", "map4.png"} <= set(read)  # not stored in the index
    assert set(kept) <= set(shards_of(caches))
    assert sum(map(images_in, shards_of(caches))) == len(SIZES) + 2
    plain = open_images(manifest, side=24, cache_dir=None)
    np.testing.assert_array_equal(images.canvases(ROWS), plain.canvases(ROWS))
    np.testing.assert_array_equal(images.human_maps(ROWS), plain.human_maps(ROWS))
