"""Manifests: what is read and written, and what is refused."""

import csv
import io
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor.data.checks import COLUMNS
from preceptor.data.manifest import Manifest
from preceptor.errors import ProblemsError
from tests.data.sound_manifest import HEADER, problems, save, sound, with_line, write

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
    names = manifest.table["name"][manifest.train_mask].tolist()
    assert names == ["images/a.png", "images/c.png"]
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
        lambda text: (text + ",,,\n , \n").encode(),
        lambda text: text.replace("\n", ",,\n").encode(),
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
    for other in (
        frame.astype({"label": "category", "source": "category"}),
        frame.set_index(["group", "source"]),
        frame.rename(columns={"group": " group "}),
        pd.concat([frame[:0], frame]).rename(index=str),
    ):
        other.to_parquet(folder / "m.parquet")
        table = Manifest.read(folder / "m.parquet").table
        pd.testing.assert_frame_equal(table[list(COLUMNS)], expected[list(COLUMNS)])
        assert not [name for name in table if "index" in str(name)]
    table = Manifest.from_frame(frame.set_index("group"), folder).table
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


# Writing


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


def test_a_file_listed_twice_through_a_link_is_found(folder: Path) -> None:
    (folder / "alias").symlink_to(folder / "images")
    (folder / "g.png").symlink_to(folder / "images" / "c.png")
    lines = [*sound(), "alias/a.png,fake,test,,,,,,,", "g.png,real,test,,,,,,,"]
    told = problems(write(folder, *lines))
    assert "row 8: image 'alias/a.png' is listed already in row 2" in told[0]
    assert "row 9: image 'g.png' is listed already in row 4" in told[1]


def test_a_missing_folder_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    lines = ["path,label,split"]
    for i in range(8):
        folder = "there" if i == 7 else "gone/deep"
        split = ("train", "train", "val", "test")[i % 4]
        lines.append(f"{folder}/{i}.png,{'real' if i < 4 else 'fake'},{split}")
    told = problems(write(tmp_path, *lines), verify=False)
    assert [problem.split(";")[0] for problem in told] == [
        "row 2: image 'gone/deep/0.png' and 6 more: there is no folder 'gone/deep'",
        "row 9: image 'there/7.png' does not exist",
    ]


# Files are looked into


@pytest.mark.parametrize(
    ("size", "fits"),
    [((4, 3), True), ((10, 8), True), ((800, 612), True), ((800, 640), False), ((60, 80), False)],
)
def test_maps_must_have_the_aspect_of_their_image(
    folder: Path, size: tuple[int, int], fits: bool
) -> None:
    save(folder / "maps" / "a.png", size, "L")
    if fits:
        Manifest.read(folder / "m.csv")
    else:
        (told,) = problems(folder / "m.csv")
        assert f"row 2: map 'maps/a.png' is {size[0]}×{size[1]}, its image 8×6" in told


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf\n", "the file: the file is empty"),
        (b"PAR1junkPAR1", "not a sound Parquet file"),
        (b"image,class,Split\na,b,c\n", "rename 'Split' to 'split'"),
        (b"pfad,labl,splt\na,b,c\n", "rename 'labl' to 'label'"),
        (b"path,label\na,b\n", "column 'split' is missing; make it with `preceptor data split`"),
        (b"path,label,split\na.png,b,\n", "the table: no row has a train split"),
        (b"path,label,split,Group\na,b,train,c\n", "column 'Group' is not 'group'"),
        (b"path,label,split,saliancy\na,b,train,c\n", "column 'saliancy' is not 'saliency'"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    told = problems(path)
    assert any(expected in problem for problem in told), told
    assert not any("split is empty" in problem for problem in told)  # of the whole column


def test_folders_and_wrong_parquet_names_are_refused(tmp_path: Path) -> None:
    assert "it is a folder" in problems(tmp_path)[0]
    assert "not a Parquet file" in problems(write(tmp_path, HEADER, name="m.parquet"))[0]


@pytest.mark.parametrize(
    ("line", "row", "expected"),
    [
        (3, ",fake,val,,,,,,,", "row 3: path is empty"),
        (3, "images/b.png,fake,,,,,,,,", "row 3: split is empty"),
        (3, "images/b.png,fake,Val,,,,,,,", "row 3: split 'Val' is unknown"),
        (3, r"images\b.png,fake,val,,,,,,,", "write / instead of"),
        (3, r"C:\b.png,fake,val,,,,,,,", "copy it to this machine"),
        (3, "images/../images/a.png,fake,val,,,,,,,", "is listed already in row 2"),
        (3, "images/b.png,fake,val,,,,,nan,,", "row 3: map_weight is 'nan'"),
    ],
)
def test_wrong_cells_are_named(folder: Path, line: int, row: str, expected: str) -> None:
    told = problems(with_line(folder, line, row), verify=False)
    assert any(expected in problem for problem in told), told
    assert len(told) <= 2


@pytest.mark.parametrize("column", ["label", "split", "source", "group"])
def test_words_with_line_breaks_are_refused(folder: Path, column: str) -> None:
    table = pd.read_csv(folder / "m.csv", dtype="str", keep_default_na=False)
    table.loc[2, column] = f"{table.loc[2, column]}a\nb\x1b[31m"
    table.to_csv(folder / "m.csv", index=False)
    told = [text for text in problems(folder / "m.csv") if "control character" in text]
    assert len(told) == 1
    assert told[0].startswith(f"row 4: {column} '")
    assert "\n" not in told[0]


def test_a_cell_that_holds_a_whole_file_is_told_in_short(folder: Path) -> None:
    (text,) = problems(with_line(folder, 4, f"{'x' * 100_000},real,train,,1,,p1,1,1,33"))
    assert len(text) < 1_000
    assert text.startswith("row 4: image 'xxx")
    assert text.endswith("correct it")
    for text in problems(write(folder, "a" * 100_000, "b")):  # as a header
        assert len(text) < 1_000


@pytest.mark.parametrize(("label", "kind"), [(["plain"], "ndarray"), (b"\xff", "bytes")])
def test_cells_that_are_no_text_are_refused(folder: Path, label: object, kind: str) -> None:
    frame = pd.DataFrame({"path": ["a.png"], "label": [label], "split": ["train"]})
    frame.to_parquet(folder / "m.parquet")
    (problem,) = problems(folder / "m.parquet")
    assert f"label has cells of the type {kind}" in problem
    with pytest.raises(ProblemsError, match="label has cells of the type"):
        Manifest.from_frame(frame, folder)


def test_two_columns_of_one_name_in_parquet_are_named(folder: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["path", "label", "path"])
    pq.write_table(table, folder / "m.parquet")
    assert problems(folder / "m.parquet") == [
        "the header: column 'path' occurs 2 times; rename or remove all but one"
    ]


def test_rows_are_counted_as_an_editor_does(folder: Path) -> None:
    lines = sound()
    lines[1] = lines[1][:-2] + '"a note\nof three\nlines"'
    lines.insert(2, "")
    lines[3] = "images/z.png,fake,val,,,,,,,"  # lines 2 to 4 are one row and 5 is blank
    assert problems(write(folder, *lines), verify=False)[0].startswith("row 6: image")


def test_labels_outside_the_classes_are_refused(folder: Path) -> None:
    told = problems(folder / "m.csv", classes=["real", "other"])
    assert told[0].startswith("row 2: label 'fake' is not one of the classes")
    assert len(told) == 3
