"""What is wrong with a manifest is told, all at once."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor.data.manifest import Manifest
from preceptor.errors import ProblemsError
from tests.data.sound_manifest import HEADER, problems, sound, with_line, write


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "the file: there is no such file"),
        (b"", "the file: the file is empty"),
        (b" \n\n ", "the file: the file is empty"),
        (b"\xef\xbb\xbf\n", "the file: the file is empty"),
        (b"path,label,split\n", "the table: there are no rows"),
        (b"path,label\0", "the file: the file is binary (a zero byte at 10)"),
        (b"PK\x03\x04junk", "workbook"),
        ("path,label,split\n".encode("utf-16"), "UTF-16"),
        (b"path,label,split\na,\xfcb,train\n", "row 2: not UTF-8 (byte 0xfc at position 19"),
        (b"PAR1junkPAR1", "not a sound Parquet file"),
        (b'path,label,split\n"a,b,c\nd,e,f\n', "row 2: cannot be parsed"),
        (b"path,label,label,split\na,b,b,c\n", "column 'label' occurs 2 times"),
        (b"image,class,Split\na,b,c\n", "rename 'image' to 'path'"),
        (b"image,class,Split\na,b,c\n", "rename 'class' to 'label'"),
        (b"image,class,Split\na,b,c\n", "rename 'Split' to 'split'"),
        (b"pfad,labl,splt\na,b,c\n", "rename 'labl' to 'label'"),
        (b"x,y,z\na,b,c\n", "column 'path' is missing"),
        (b"path,label\na,b\n", "column 'split' is missing; make it with `preceptor data split`"),
        (b"path,label,split,Group\na,b,train,c\n", "column 'Group' is not 'group'"),
        (b"path,label,split\na,b\n", "row 2: has 2 cells where 3 are expected"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "m.csv"
    if content is not None:
        path.write_bytes(content)
    told = problems(path)
    assert any(expected in problem for problem in told), told


def test_folders_and_wrong_parquet_names_are_refused(tmp_path: Path) -> None:
    assert "it is a folder" in problems(tmp_path)[0]
    assert "not a Parquet file" in problems(write(tmp_path, HEADER, name="m.parquet"))[0]


@pytest.mark.parametrize(
    ("line", "row", "expected"),
    [
        (3, "images/b.png,fake,val", "row 3: has 3 cells where 10 are expected"),
        (3, ",fake,val,,,,,,,", "row 3: path is empty"),
        (3, "images/b.png,,val,,,,,,,", "row 3: label is empty"),
        (3, "images/b.png,fake,,,,,,,,", "row 3: split is empty"),
        (3, "images/b.png,fake,Val,,,,,,,", "row 3: split 'Val' is unknown"),
        (3, "images/z.png,fake,val,,,,,,,", "row 3: image 'images/z.png' does not exist"),
        (3, r"images\b.png,fake,val,,,,,,,", "write / instead of"),
        (3, "images,fake,val,,,,,,,", "row 3: image 'images' does not exist"),
        (3, "images/b.png,fake,val,maps/z.png,,,,,,", "row 3: map 'maps/z.png' does not exist"),
        (3, "images/a.png,fake,val,,,,,,,", "row 3: image 'images/a.png' is listed already in"),
        (3, "images/../images/a.png,fake,val,,,,,,,", "is listed already in row 2"),
        (3, "images/b.png,fake,val,,,,p1,,,", "group 'p1' is in train (row 2) and in val (row 3)"),
        (3, "images/b.png,fake,val,,maybe,,,,,", "row 3: annotated is 'maybe'"),
        (3, "images/b.png,fake,val,maps/b.png,0,,,,,", "row 3: has a map but annotated 0"),
        (3, "images/b.png,fake,val,,,,,-1,,", "row 3: map_weight is '-1'"),
        (3, "images/b.png,fake,val,,,,,inf,,", "row 3: map_weight is 'inf'"),
        (3, "images/b.png,fake,val,,,,,nan,,", "row 3: map_weight is 'nan'"),
        (3, "images/b.png,fake,val,,,,,,0,", "row 3: sample_weight is '0'"),
        (3, "images/b.png,fake,val,,,,,,two,", "row 3: sample_weight is 'two'"),
        (3, "images/b.png,other,val,,,,,,,", "row 3: label 'other' (1 images) does not occur in"),
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


def test_a_header_of_one_long_cell_is_told_in_short(folder: Path) -> None:
    for text in problems(write(folder, "a" * 100_000, "b")):
        assert len(text) < 1_000


def test_a_device_is_no_manifest() -> None:
    assert problems(Path("/dev/zero")) == ["the file: it is a device; name a file"]


@pytest.mark.parametrize(
    ("cell", "kind"), [([1, 2], "ndarray"), ({"a": 1}, "dict"), (b"\xff\xfe", "bytes")]
)
@pytest.mark.parametrize("column", ["label", "group", "map_weight", "annotated"])
def test_cells_that_are_no_text_are_refused_by_row(
    folder: Path, column: str, cell: Any, kind: str
) -> None:
    table = pd.read_csv(folder / "m.csv", dtype="str", keep_default_na=False)
    table[column] = [cell] * len(table)
    table.to_parquet(folder / "m.parquet")
    told = problems(folder / "m.parquet")
    assert f"row 0 (from 0): {column} is a {kind}; write text or a number" in told


def test_two_columns_of_one_name_in_parquet_are_named(folder: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["path", "label", "path"])
    pq.write_table(table, folder / "m.parquet")
    assert problems(folder / "m.parquet") == [
        "the header: column 'path' occurs 2 times; rename or remove all but one"
    ]


def test_everything_is_told_at_once_in_the_order_of_rows(folder: Path) -> None:
    (folder / "images" / "e.png").write_bytes(b"")
    lines = sound()
    lines[1] = lines[1].replace("maps/a.png", "maps/none.png")
    lines[3] = "images/c.png,real"
    lines[4] = lines[4].replace(",val,", ",dev,").replace(",0,", ",perhaps,")
    lines[6] = lines[6].replace("images/f.png", "images/none.png")
    told = problems(write(folder, *lines))
    places = [problem.split(":")[0] for problem in told]
    assert places == ["row 2", "row 4", "row 5", "row 5", "row 5", "row 6", "row 7"]
    for expected in ("none.png", "cells", "dev", "perhaps", "empty", "label 'real'"):
        assert any(expected in problem for problem in told)


def test_long_lists_are_cut(folder: Path) -> None:
    rows = [f"images/z{i}.png,fake,train,,,,,,," for i in range(1000)]
    with pytest.raises(ProblemsError, match="and 980 more"):
        Manifest.read(write(folder, *sound(), *rows))


def test_rows_are_counted_as_an_editor_does(folder: Path) -> None:
    lines = sound()
    lines[1] = lines[1][:-2] + '"a note\nof three\nlines"'
    lines.insert(2, "")
    lines[3] = "images/z.png,fake,val,,,,,,,"  # lines 2 to 4 are one row and 5 is blank
    assert problems(write(folder, *lines), verify=False)[0].startswith("row 6: image")


def test_one_class_is_refused(folder: Path) -> None:
    lines = [line.replace("real", "fake") for line in sound()]
    assert "every image has the label 'fake'" in problems(write(folder, *lines))[0]


def test_labels_outside_the_classes_are_refused(folder: Path) -> None:
    told = problems(folder / "m.csv", classes=["real", "other"])
    assert told[0].startswith("row 2: label 'fake' is not one of the classes")
    assert len(told) == 3
