"""Shards of an image cache: whole or absent, and found by content."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.data import shards
from preceptor.data.shard_writer import ShardWriter
from preceptor.data.shards import ShardFolder
from preceptor.errors import RunFailedError
from preceptor.runtime.checksums import content_hash

SHAPE = (4, 4, 3)
DIGESTS = [content_hash(bytes([number])) for number in range(200)]


def pixels_of(number: int) -> NDArray[np.uint8]:
    return np.full(SHAPE, number, np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardFolder:
    """Folder whose shards have at most 16 arrays."""
    monkeypatch.setattr(shards, "_SHARD_BYTES", 16 * 48)
    (tmp_path / "hidden").mkdir()
    return ShardFolder(tmp_path / "shards", SHAPE)


def write(folder: ShardFolder, numbers: list[int], more: int = 0) -> ShardWriter:
    """Write arrays; `more` are expected that do not come."""
    hidden = folder.folder.parent / "hidden"
    writer = ShardWriter(folder, hidden, len(numbers) + more)
    for number in numbers:
        if writer.wants(DIGESTS[number]):
            writer.put(DIGESTS[number], pixels_of(number), (number + 1, number + 2))
    return writer


def held(folder: ShardFolder) -> dict[bytes, int]:
    """Number in the pixels by content hash, after comparison with what was written."""
    found: dict[bytes, int] = {}
    known = folder.read()
    assert len(known.digests) == known.counts.sum()
    rows = iter(known.digests)
    for name, count in zip(known.names, known.counts.tolist(), strict=True):
        pixels, sizes = folder.pixels(name, count), folder.sizes(name)
        np.testing.assert_array_equal(np.load(folder.folder / name / "images.npy"), pixels)
        for image, size in zip(pixels, sizes, strict=True):
            number = int(image[0, 0, 0])
            digest = next(rows).tobytes()
            assert digest == DIGESTS[number]
            assert digest not in found
            assert size.tolist() == [number + 1, number + 2]
            assert (image == number).all()
            found[digest] = number
    return found


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_a_shard_is_published_when_it_is_full_and_the_last_one_at_the_end(
    folder: ShardFolder, count: int
) -> None:
    writer = write(folder, list(range(count)), more=5)
    assert sorted(folder.read().counts) == [16] * (count // 16)
    writer.finish()
    assert sorted(held(folder).values()) == list(range(count))
    assert not list((folder.folder.parent / "hidden").iterdir())


def test_what_is_there_is_not_written_again(folder: ShardFolder) -> None:
    write(folder, list(range(20))).finish()
    before = set(folder.read().names)
    writer = write(folder, [5, 25, 19, 25, 26])
    writer.put(DIGESTS[26], pixels_of(26), (27, 28))  # two threads may decode equal files
    writer.finish()
    assert sorted(held(folder).values()) == [*range(20), 25, 26]
    assert len(set(folder.read().names) - before) == 1
    writer = write(folder, [5, 25])
    writer.finish()
    assert len(folder.read().names) == 3


def test_hashes_that_end_with_zeros_are_told_apart(folder: ShardFolder) -> None:
    """Numpy compares fixed texts without the zeros at their end."""
    one, other = bytes([7] * 15 + [0]), bytes([7] * 14 + [0, 0])
    for digest in (one, other):
        writer = ShardWriter(folder, folder.folder.parent / "hidden", 1)
        assert writer.wants(digest)
        writer.put(digest, pixels_of(0), (1, 1))
        writer.finish()
    writer = ShardWriter(folder, folder.folder.parent / "hidden", 1)
    assert not writer.wants(one)
    assert not writer.wants(other)
    assert writer.wants(bytes(16))


def test_many_threads_write_at_once(folder: ShardFolder) -> None:
    writer = ShardWriter(folder, folder.folder.parent / "hidden", 200)

    def put(number: int) -> None:
        if writer.wants(DIGESTS[number % 200]):
            size = (number % 200 + 1, number % 200 + 2)
            writer.put(DIGESTS[number % 200], pixels_of(number % 200), size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(600)))
    writer.finish()
    assert sorted(held(folder).values()) == list(range(200))


@pytest.mark.parametrize("name", ["images.npy", "sizes.npy", "digests.npy"])
@pytest.mark.parametrize("change", ["cut", "empty", "gone", "longer"])
def test_a_damaged_shard_counts_as_absent_and_is_removed(
    folder: ShardFolder, name: str, change: str
) -> None:
    write(folder, list(range(32))).finish()
    whole, damaged = folder.read().names
    file = folder.folder / damaged / name
    if change == "gone":
        file.unlink()
    else:
        size = file.stat().st_size
        os.truncate(file, {"cut": size - 1, "empty": 0, "longer": size + 48}[change])
    if change == "longer" and name != "images.npy":  # what is appended to them is not read
        assert folder.read().names == [whole, damaged]
        return
    assert folder.read().names == [whole]
    folder.remove_damaged()
    assert [one.name for one in folder.folder.iterdir()] == [whole]
    write(folder, list(range(32))).finish()
    assert sorted(held(folder).values()) == list(range(32))


def test_a_shard_that_is_damaged_after_the_look_is_told_in_one_line(folder: ShardFolder) -> None:
    write(folder, [1, 2]).finish()
    (name,) = folder.read().names
    file = folder.folder / name / "images.npy"
    content = file.read_bytes()
    for wrong in (content[:-1], content.replace(b"(2, 4", b"(4, 2"), b""):
        file.write_bytes(wrong)
        with pytest.raises(RunFailedError, match=r"^.*images\.npy: damaged or removed; start ag"):
            folder.pixels(name, 2)


def test_an_open_shard_keeps_no_file_open(folder: ShardFolder) -> None:
    write(folder, list(range(160))).finish()
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    known = folder.read()
    kept = [folder.pixels(name, 16) for name in known.names]
    assert len(kept) == 10
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) == before


WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from preceptor.data.shards import mapped_file
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
try:
    mapped_file(Path(sys.argv[1]))
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory")
def test_memory_without_room_is_no_damage(tmp_path: Path) -> None:
    with (tmp_path / "large.npy").open("wb") as file:
        file.truncate(2**33)  # without content, it takes no disk
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOM, tmp_path / "large.npy"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path / 'large.npy'}: it cannot be memory-mapped\n"
