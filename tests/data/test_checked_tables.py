"""Tables of manifests that were found valid are used again while nothing has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from preceptor.config.settings import ImageFormat
from preceptor.data import manifest as manifest_module
from preceptor.data.decode_pass import TABLES, DecodePass
from preceptor.data.manifest import Manifest
from preceptor.data.shards import SHARDS
from preceptor.data.workspace import Workspace
from preceptor.errors import ProblemsError
from preceptor.study.workspaces import Workspaces
from tests.datasets import squares


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = squares(tmp_path / "data")
    table = pd.read_csv(file, keep_default_na=False)
    table["camera"], table["annotation_seconds"] = "a", ["2.5", *[""] * (len(table) - 1)]
    table.to_csv(file, index=False)
    return file


def read(file: Path, **checks: object) -> Manifest:
    with DecodePass(file.parent / "cache", [ImageFormat(16)]) as decoding:
        return Manifest.read(file, decoding=decoding, **checks)  # type: ignore[arg-type]


def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Manifests that are parsed from here on."""
    found: list[Path] = []
    original = manifest_module.read_table

    def read_table(path: Path, *rest: object) -> object:
        found.append(path)
        return original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(manifest_module, "read_table", read_table)
    return found


def test_an_unchanged_manifest_is_not_parsed_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(file)
    seen = parsed(monkeypatch)
    again = read(file)
    assert seen == []
    pd.testing.assert_frame_equal(again.table, first.table)
    assert (again.root, again.source) == (first.root, first.source)
    read(file, classes=["marked", "plain", "third"])
    assert len(seen) == 1


def test_processes_after_the_first_do_not_parse_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = file.parent / "cache"
    first = read(file)
    seen = parsed(monkeypatch)
    workspaces = Workspaces({0: file}, {file: cache})
    for again in (workspaces.of(0).manifest, Workspace.open(file, cache).manifest):
        pd.testing.assert_frame_equal(again.table, first.table)
        assert again.contents is not None
        assert first.contents is not None
        assert again.contents.digest == first.contents.digest
    assert seen == []
    touch(Path(first.table["path"].iloc[0]))
    assert Workspace.open(file, cache).manifest.contents is None
    assert len(seen) == 1


def test_a_stored_table_is_mapped_and_not_copied(file: Path) -> None:
    rows = pd.read_csv(file, keep_default_na=False)
    rows["note"] = ["a long text " * 1000] * len(rows)
    rows.to_csv(file, index=False)
    text = int(rows["note"].str.len().sum())
    before = pa.total_allocated_bytes()
    first = read(file)
    again = read(file)
    assert pa.total_allocated_bytes() - before < text / 10
    pd.testing.assert_frame_equal(again.table, first.table)
    assert not again.table["annotation_seconds"].to_numpy().flags.owndata


def grow(image: Path) -> None:
    image.write_bytes(image.read_bytes() + b"more")


def touch(image: Path) -> None:
    os.utime(image, ns=(1, 1))


def cut(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:40])


@pytest.mark.parametrize(
    ("change", "is_valid"), [(grow, True), (touch, True), (cut, False), (Path.unlink, False)]
)
@pytest.mark.parametrize("column", ["path", "saliency"])
def test_a_changed_file_is_checked_again(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    is_valid: bool,
    column: str,
) -> None:
    names = read(file).table[column]
    change(Path(names[names != ""].iloc[0]))
    seen = parsed(monkeypatch)
    if is_valid:
        read(file)
    else:
        with pytest.raises(ProblemsError):
            read(file)
    assert len(seen) == 1


def test_a_changed_row_is_parsed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(file)
    file.write_text(file.read_text().replace(",a,", ",b,", 1))
    seen = parsed(monkeypatch)
    assert read(file).table["camera"].eq("b").sum() == 1
    assert len(seen) == 1


def test_a_cache_that_is_gone_is_filled_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(file)
    (cache,) = (file.parent / "cache" / SHARDS).glob("16-*")
    shutil.rmtree(cache)
    seen = parsed(monkeypatch)
    read(file)
    assert cache.is_dir()
    assert len(seen) == 1


def test_a_damaged_table_is_made_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(file)
    (stored,) = (file.parent / "cache" / TABLES).iterdir()
    stored.write_bytes(stored.read_bytes()[:-200])
    seen = parsed(monkeypatch)
    pd.testing.assert_frame_equal(read(file).table, first.table)
    assert len(seen) == 1
    read(file)
    assert len(seen) == 1


@pytest.mark.parametrize("place", [0.2, 0.4, 0.6, 0.8])
def test_a_table_with_damaged_bytes_does_not_end_the_process(file: Path, place: float) -> None:
    first = read(file)
    (stored,) = (file.parent / "cache" / TABLES).iterdir()
    content = bytearray(stored.read_bytes())
    start = int(place * len(content))
    content[start : start + 64] = b"\xff" * 64
    stored.write_bytes(content)
    again = read(file)
    assert len(again.table) == len(first.table)
    assert str(again.table) != ""


def test_a_manifest_with_problems_leaves_no_table(file: Path) -> None:
    file.write_text(file.read_text() + "nowhere.png,marked,train,,,,,,\n")
    with pytest.raises(ProblemsError):
        read(file)
    assert not (file.parent / "cache" / TABLES).exists()
