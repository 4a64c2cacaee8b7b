"""A sound manifest: what it gives, and what selecting and writing keep."""

import csv
import io
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from preceptor.data.checks import COLUMNS
from preceptor.data.manifest import Manifest
from preceptor.errors import ProblemsError
from tests.data.sound_manifest import problems, save, sound, write

# What a sound manifest gives


def test_a_sound_manifest_reads(folder: Path) -> None:
    manifest = Manifest.read(folder / "m.csv")
    table = manifest.table
    assert list(table.columns) == [*COLUMNS, "age"]
    assert list(table.index) == list(range(6)) == list(range(len(manifest)))
    assert table["path"][0] == str(folder / "images" / "a.png")
    assert table["name"][0] == "images/a.png"
    assert table["saliency"].tolist()[1:3] == [str(folder / "maps" / "b.png"), ""]
    assert table["annotated"].tolist() == [True, True, True, False, False, False]
    assert table["source"].tolist() == ["gan1", "gan2", "", "", "", "gan3"]
    assert table["map_weight"].tolist() == [1, 0.5, 1, 1, 1, 1]
    assert table["sample_weight"].tolist() == [1, 2, 1, 1, 1, 1]
    assert table["age"].tolist() == ["31", "32", "33", "34", "", "36"]
    assert table["annotated"].dtype == bool
    assert manifest.classes == ["fake", "real"]
    assert manifest.eval_splits("val") == ["val-unseen", "val"]
    assert manifest.eval_splits("test") == ["test", "test-gan3"]
    assert manifest.train_mask.tolist() == [True, False, True, False, False, False]
    assert manifest.train_split["name"].tolist() == ["images/a.png", "images/c.png"]
    assert manifest.annotated_mask.tolist() == table["annotated"].tolist()
    assert manifest.map_mask.tolist() == [True, True, False, False, False, False]
    assert (manifest.root, manifest.source) == (folder, folder / "m.csv")


def test_optional_columns_may_be_absent(folder: Path) -> None:
    lines = [",".join(line.split(",")[:3]) for line in sound()]
    table = Manifest.read(write(folder, *lines)).table
    assert list(table.columns) == list(COLUMNS)
    assert not table["annotated"].any()
    assert (table["saliency"] == "").all()
    assert (table[["map_weight", "sample_weight"]] == 1).all(axis=None)


def as_tsv(text: str) -> bytes:
    return text.replace(",", "\t").encode()


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.replace(",", ";").encode(),
        as_tsv,
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace(",", ", ").encode(),
        lambda text: ("\n\n" + text.replace("\n", "\n\n")).encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
)
def test_dialects_read_the_same(folder: Path, encode: Any) -> None:
    expected = Manifest.read(folder / "m.csv").table
    (folder / "other.csv").write_bytes(encode("\n".join(sound()) + "\n"))
    pd.testing.assert_frame_equal(Manifest.read(folder / "other.csv").table, expected)


def test_parquet_reads_the_same(folder: Path) -> None:
    expected = Manifest.read(folder / "m.csv").table
    frame = pd.read_csv(folder / "m.csv")
    frame.to_parquet(folder / "m.parquet")
    table = Manifest.read(folder / "m.parquet").table
    pd.testing.assert_frame_equal(table[list(COLUMNS)], expected[list(COLUMNS)])
    frame.astype({"label": "category", "source": "category"}).to_parquet(folder / "m.parquet")
    table = Manifest.read(folder / "m.parquet").table
    pd.testing.assert_frame_equal(table[list(COLUMNS)], expected[list(COLUMNS)])


@pytest.mark.parametrize(
    "name", ["two words.png", "a,b.png", "süß-図.png", " lead.png", 'quo"te.png', "${HOME}.png"]
)
def test_unusual_file_names_work(folder: Path, name: str) -> None:
    save(folder / "images" / name)
    rows = list(csv.reader(sound()))
    rows[3][0] = f"images/{name}"
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
    manifest = Manifest.read(write(folder, buffer.getvalue()))
    assert manifest.table["name"][2] == f"images/{name}"
    manifest.write(folder / "again.csv")
    pd.testing.assert_frame_equal(Manifest.read(folder / "again.csv").table, manifest.table)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode")
def test_a_folder_whose_name_is_not_utf_8_is_refused(folder: Path) -> None:
    old = Path(os.fsdecode(os.fsencode(folder.parent / "ann") + b"\xe9e"))
    folder.rename(old)
    with pytest.raises(ProblemsError) as caught:
        Manifest.read(old / "m.csv")
    (problem,) = caught.value.problems
    assert "ann\\xe9e, is not UTF-8" in problem.what
    assert problem.fix == "rename the folder"
    str(caught.value).encode()


def test_absolute_and_upward_paths_work(folder: Path) -> None:
    (folder / "tables").mkdir()
    lines = [
        line.replace("images/", "../images/").replace("maps/", f"{folder}/maps/")
        for line in sound()
    ]
    table = Manifest.read(write(folder / "tables", *lines)).table
    assert table["name"][0] == "../images/a.png"
    assert Path(table["path"][0]).samefile(folder / "images" / "a.png")
    assert table["saliency"][0] == str(folder / "maps" / "a.png")


def test_need_relaxes_the_kinds_of_split(folder: Path) -> None:
    path = write(folder, *[line for line in sound() if ",test" not in line])
    assert problems(path) == [
        "the table: no row has a test split; give some rows the split 'test' "
        "(`preceptor data split` makes splits)"
    ]
    assert len(Manifest.read(path, need=("train", "val"))) == 4
    lines = ["path,label", "images/a.png,fake", "images/c.png,real"]
    manifest = Manifest.read(write(folder, *lines), need=())
    assert manifest.table["split"].tolist() == ["", ""]
    with pytest.raises(ValueError, match="training"):
        Manifest.read(path, need=("training",))


def test_from_frame_checks_as_read_does(folder: Path) -> None:
    read = Manifest.read(folder / "m.csv")
    frame = pd.DataFrame(read.table)
    again = Manifest.from_frame(frame, folder)
    pd.testing.assert_frame_equal(again.table, read.table)
    frame = frame.assign(split="train", label=["x", "", "y", None, "z", "z"])
    with pytest.raises(ProblemsError) as caught:
        Manifest.from_frame(frame.set_index("name", drop=False), folder, "made here")
    told = str(caught.value)
    assert told.startswith("made here: 4 problems")
    assert "row 1 (from 0): label is empty" in told
    assert "row 3 (from 0): label is empty" in told
    assert "no row has a val split" in told


# Selecting and writing


def test_select_renumbers(folder: Path) -> None:
    manifest = Manifest.read(folder / "m.csv")
    train = manifest.select(manifest.train_mask)
    assert train.table["name"].tolist() == ["images/a.png", "images/c.png"]
    assert train.table.index.tolist() == [0, 1]
    for wrong in ([True], [0, 1, 2, 3, 4, 5]):
        with pytest.raises(ValueError, match="6 booleans"):
            manifest.select(wrong)


@pytest.mark.parametrize("name", ["n.csv", "n.parquet", "deeper/n.csv", "deeper/n.parquet"])
def test_writing_and_reading_keeps_everything(folder: Path, name: str) -> None:
    manifest = Manifest.read(folder / "m.csv")
    (folder / "deeper").mkdir()
    manifest.write(folder / name)
    again = Manifest.read(folder / name).table
    for column in ("path", "saliency"):
        again[column] = [os.path.normpath(path) if path else "" for path in again[column]]
    pd.testing.assert_frame_equal(again, manifest.table)
    assert not list(folder.rglob("*.tmp"))


def test_a_manifest_that_is_written_behind_a_link_finds_its_files(folder: Path) -> None:
    manifest = Manifest.read(folder / "m.csv")
    (folder / "far" / "away" / "big").mkdir(parents=True)
    (folder / "scratch").symlink_to(folder / "far" / "away" / "big")
    for place in (folder / "scratch", folder / "scratch" / "deeper"):
        place.mkdir(exist_ok=True)
        manifest.write(place / "n.csv")
        again = Manifest.read(place / "n.csv").table
        for column in ("path", "saliency"):
            for old, new in zip(manifest.table[column], again[column], strict=True):
                assert (old == new == "") or Path(old).samefile(new)
        assert again["name"].tolist() == manifest.table["name"].tolist()
