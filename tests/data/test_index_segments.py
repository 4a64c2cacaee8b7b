"""Segments of the index of files: nothing is lost, the newest entry counts, damage is left out."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.data import index_segments
from preceptor.data.file_index import FileIndex, KnownFiles
from preceptor.data.index_segments import IndexSegments
from preceptor.runtime.checksums import content_hash
from tests.commands import HANGS


def make(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").write_bytes(bytes([number]))
    return [str(folder / f"{number}.png") for number in range(count)]


def remember(index: Path, paths: Sequence[str], text: bytes = b"") -> KnownFiles:
    """Store made-up properties of files."""
    files = FileIndex(None).look_up(paths)
    for at, path in enumerate(paths):
        files.digest[at] = np.frombuffer(content_hash(path.encode() + text), np.uint8)
        files.size[at] = at + 1, at + 2
    files.known[:] = files.as_image[:] = True
    files.as_map[::2] = True
    FileIndex(index).remember(files, np.ones(len(paths), bool))
    return files


def assert_known(index: Path, expected: KnownFiles) -> None:
    found = FileIndex(index).look_up(expected.paths)
    assert found.known.all()
    for name in ("digest", "size", "as_image", "as_map"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_segment_has_the_new_entries_only_and_the_newest_counts(tmp_path: Path) -> None:
    paths, index = make(tmp_path / "data", 6), tmp_path / "index"
    remember(index, paths)
    first = {file: file.stat().st_mtime_ns for file in index.iterdir()}
    latest = remember(index, paths[:2], b"later")
    assert {file: file.stat().st_mtime_ns for file in first} == first
    names = IndexSegments(index).names()
    assert [sum(map(len, IndexSegments(index).groups(name))) for name in names] == [2, 6]
    assert_known(index, latest)


def test_entries_of_missing_and_of_changed_files_are_left_out(tmp_path: Path) -> None:
    paths, index = make(tmp_path / "data", 4), tmp_path / "index"
    remember(index, paths)
    Path(paths[1]).unlink()
    Path(paths[2]).write_bytes(b"longer")
    found = FileIndex(index).look_up(paths)
    assert found.known.tolist() == [True, False, False, True]
    assert list(found.errors) == [1]


@pytest.mark.parametrize("group", [1, 3, 100])
def test_many_segments_are_merged_into_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr("preceptor.data.file_index.GROUP", group)
    monkeypatch.setattr(index_segments, "_MOST", 4)
    paths, index = make(tmp_path / "data", 8), tmp_path / "index"
    remember(index, paths)
    for number in range(3):
        remember(index, paths[: number + 1], b"earlier")
    assert len(IndexSegments(index).names()) == 4
    latest = remember(index, paths[2:5], b"later")
    (name,) = IndexSegments(index).names()
    assert sum(map(len, IndexSegments(index).groups(name))) == 8
    assert_known(index, latest)
    # What is added after a merge is newer than what was merged.
    assert_known(index, remember(index, paths, b"last"))


@pytest.mark.parametrize("change", ["cut", "empty", "junk", "byte"])
def test_a_damaged_segment_is_left_out_and_removed_by_the_next_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    paths, index = make(tmp_path / "data", 4), tmp_path / "index"
    kept = remember(index, paths[:2])
    lost = remember(index, paths[2:])
    damaged = index / IndexSegments(index).names()[0]
    content = bytearray(damaged.read_bytes())
    content[content.index(lost.digest[1].tobytes())] ^= 255
    new = {"cut": bytes(content[:-30]), "empty": b"", "junk": b"PAR1" * 9, "byte": bytes(content)}
    damaged.write_bytes(new[change])
    assert FileIndex(index).look_up(paths).known.tolist() == [True, True, False, False]
    monkeypatch.setattr(index_segments, "_MOST", 1)
    remember(index, paths[3:])
    assert not damaged.exists()
    assert len(IndexSegments(index).names()) == 1
    assert FileIndex(index).look_up(paths).known.tolist() == [True, True, False, True]
    assert_known(index, kept)


def test_a_reader_that_finds_a_segment_gone_lists_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, index = make(tmp_path / "data", 6), tmp_path / "index"
    remember(index, paths[:3])
    remember(index, paths[3:])
    listed = IndexSegments.names
    lists = []

    def names(self: IndexSegments) -> list[str]:
        found = listed(self)
        lists.append(found)
        if len(lists) == 1:  # another process merges right after this one has listed
            segments = IndexSegments(index)
            merged = list(segments._latest(found))
            for name in found:
                (index / name).unlink()
            segments._write(1, merged)
        return found

    monkeypatch.setattr(IndexSegments, "names", names)
    assert FileIndex(index).look_up(paths).known.all()
    assert [len(one) for one in lists] == [2, 1]


def test_a_refreshed_look_up_has_what_another_process_has_stored(tmp_path: Path) -> None:
    paths, index = make(tmp_path / "data", 3), tmp_path / "index"
    waiting = FileIndex(index)
    files = waiting.look_up(paths)
    remember(index, paths[:2])
    os.utime(paths[1], ns=(1, 1))
    waiting.refresh(files)
    # Changed since the look-up: the state of then is that of the entry; a later look-up sees it.
    assert files.known.tolist() == [True, True, False]
    assert FileIndex(index).look_up(paths).known.tolist() == [True, False, False]


def add_many(index: Path, paths: Sequence[str], barrier: Any) -> None:
    barrier.wait()
    for path in paths:
        remember(index, [path])
        assert FileIndex(index).look_up([path]).known.all()


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """With merges by both: 24 segments each, merged above 16."""
    paths, index = make(tmp_path / "data", 48), tmp_path / "index"
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    both = [
        context.Process(target=add_many, args=(index, part, barrier))
        for part in (paths[::2], paths[1::2])
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(HANGS)
    assert [process.exitcode for process in both] == [0, 0]
    assert FileIndex(index).look_up(paths).known.all()
    assert len(IndexSegments(index).names()) <= 17


def test_an_entry_counts_although_its_segment_is_not_the_newest(tmp_path: Path) -> None:
    """As that of a machine whose clock is behind, added at the same time."""
    paths, index = make(tmp_path / "data", 3), tmp_path / "index"
    remember(index, paths)
    (tmp_path / "data" / "0.png").write_bytes(b"changed since")
    latest = remember(index, paths[:1], b"later")
    newest = IndexSegments(index).names()[0]
    (index / newest).rename(index / f"0{10**18}{newest[20:]}")
    assert IndexSegments(index).names()[-1].startswith("01000")
    assert_known(index, latest)


def test_new_entries_are_the_newest_after_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a merge, which keeps the newest entry of each path alone."""
    monkeypatch.setattr(index_segments, "_MOST", 2)
    paths, index = make(tmp_path / "data", 4), tmp_path / "index"
    remember(index, paths)
    (file,) = index.glob("*.parquet")
    file.rename(index / f"{time.time_ns() + 10**18:020d}-{file.name.partition('-')[2]}")
    Path(paths[0]).write_bytes(b"changed")
    latest = remember(index, paths[:1], b"later")
    remember(index, paths[2:])
    assert len(IndexSegments(index).names()) == 1
    assert_known(index, latest)
