import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.annotations import ImportOptions, read_coco, read_masks, write_import
from preceptor.annotations.shapes import ImportedAnnotations
from preceptor.errors import PreceptorError
from tests.annotations.trees import coco, imported_maps, save_image, save_json
from tests.commands import assert_refused, flags, here


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(12):
        save_image(tmp_path / "images" / f"p{number // 2}_{number}.png")
    return tmp_path / "images"


def source(tmp_path: Path, count: int = 12, rust: int = 0) -> ImportedAnnotations:
    """Images of which every other one has a crack, and the first ones have rust too."""
    names = [{"file_name": f"p{number // 2}_{number}.png"} for number in range(count)]
    shapes: list[dict[str, Any]] = [
        {"image_id": number, "bbox": [1, 2, 10, 5]} for number in range(0, count, 2)
    ]
    shapes += [
        {"image_id": number, "bbox": [20, 2, 10, 5], "category_id": 2} for number in range(rust)
    ]
    return read_coco(save_json(tmp_path / "a.json", coco(names, shapes)))


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "manifest.csv", keep_default_na=False)


def test_images_without_a_shape_are_a_question(tmp_path: Path, images: Path) -> None:
    with pytest.raises(PreceptorError, match=r"6 of 12 images: .*--unmarked .*--nothing-to-mark"):
        imported_maps(source(tmp_path), images, tmp_path / "out")
    summary, _ = imported_maps(source(tmp_path), images, tmp_path / "all", unmarked="examined")
    assert table(tmp_path / "all")["annotated"].sum() == summary.images == 12
    assert not summary.notes


def test_shapes_between_the_centers_of_pixels_are_noted(tmp_path: Path, images: Path) -> None:
    thin = {"image_id": 0, "bbox": [10.6, 3, 0.8, 20]}
    two = [{"file_name": "p0_0.png"}, {"file_name": "p0_1.png"}]
    both = [thin, {"image_id": 1, "bbox": [1, 2, 10, 5]}, thin | {"image_id": 1}]
    imported = read_coco(save_json(tmp_path / "a.json", coco(two, both)))
    summary, maps = imported_maps(imported, images, tmp_path / "out")
    assert list(maps) == ["p0_1.png"]
    assert table(tmp_path / "out")["label"].tolist() == ["crack", "crack"]
    assert table(tmp_path / "out")["annotated"].tolist() == [0, 1]
    ((note, count),) = summary.notes.items()
    assert "contain the center of no pixel" in note
    assert count == 1


def test_images_that_nobody_examined_have_no_class(tmp_path: Path, images: Path) -> None:
    summary, _ = imported_maps(source(tmp_path), images, tmp_path / "out", unmarked="unknown")
    found = table(tmp_path / "out")
    assert found["label"].tolist() == ["crack"] * 6
    assert found["annotated"].tolist() == [1] * 6
    ((note, count),) = summary.notes.items()
    assert note.startswith("images that nobody examined are left out")
    assert count == 6
    labels = tmp_path / "labels.csv"
    rows = [f"p{n // 2}_{n}.png,{'real' if n % 2 else 'fake'}" for n in range(12)]
    labels.write_text("path,label\n" + "\n".join(rows) + "\n")
    summary, _ = imported_maps(
        source(tmp_path), images, tmp_path / "named", unmarked="unknown", labels=labels
    )
    found = table(tmp_path / "named")
    assert found["label"].tolist() == ["fake", "real"] * 6
    assert found["annotated"].tolist() == [1, 0] * 6
    assert not summary.notes


def test_a_source_without_any_shape_says_nothing(tmp_path: Path, images: Path) -> None:
    names = [{"file_name": f"p{number // 2}_{number}.png"} for number in range(12)]
    imported = read_coco(save_json(tmp_path / "a.json", coco(names, [])))
    with pytest.raises(PreceptorError, match=r"12 of 12 images: .*--unmarked examined"):
        imported_maps(imported, images, tmp_path / "out")
    with pytest.raises(PreceptorError, match=r"somebody examined.*--labels"):
        imported_maps(imported, images, tmp_path / "out", unmarked="unknown")
    imported_maps(imported, images, tmp_path / "good", unmarked="examined")
    assert set(table(tmp_path / "good")["label"]) == {"negative"}


def test_several_classes_are_a_question(tmp_path: Path, images: Path) -> None:
    imported = source(tmp_path, rust=3)
    with pytest.raises(PreceptorError, match=r"shapes of 2 classes \('crack', 'rust'\)") as caught:
        imported_maps(imported, images, tmp_path / "out", unmarked="examined")
    assert "2 problems" in str(caught.value)
    _, maps = imported_maps(
        imported, images, tmp_path / "out", unmarked="examined", positive=("rust",), negative="ok"
    )
    assert table(tmp_path / "out")["label"].tolist() == ["rust"] * 3 + ["ok"] * 9
    assert sorted(maps) == ["p0_0.png", "p0_1.png", "p1_2.png"]
    _, maps = imported_maps(
        imported, images, tmp_path / "both", unmarked="examined", positive=("crack", "rust")
    )
    assert set(table(tmp_path / "both")["label"]) == {"positive", "negative"}
    with pytest.raises(PreceptorError, match="known: crack, rust"):
        imported_maps(imported, images, tmp_path / "x", unmarked="unknown", positive=("dent",))


def test_labels_come_from_a_table(tmp_path: Path, images: Path) -> None:
    rows = [
        f"p{n // 2}_{n}.png,{'real' if n % 3 else 'fake'},s{n % 2},p{n // 2},x{n}"
        for n in range(12)
    ]
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label,source,group,more\n" + "\n".join(rows) + "\n")
    options = {"labels": labels, "unmarked": "unknown"}
    imported_maps(source(tmp_path, 8), images, tmp_path / "out", **options)
    found = table(tmp_path / "out")
    assert len(found) == 12  # with those that only the table names
    assert found["label"].tolist().count("fake") == 4
    assert set(found["group"]) == {f"p{n}" for n in range(6)}
    assert set(found["more"]) == {f"x{n}" for n in range(12)}
    labels.write_text("path,label\n" + "\n".join(row.rsplit(",", 3)[0] for row in rows[:-5]))
    with pytest.raises(PreceptorError, match=r"5 problems") as caught:
        imported_maps(source(tmp_path), images, tmp_path / "x", **options)
    assert "'p5_11.png' is not in" in str(caught.value)
    labels.write_text("path,label\nno.png,real\np0_0.png,\np0_0.png,real\n")
    with pytest.raises(PreceptorError) as caught:
        imported_maps(source(tmp_path), images, tmp_path / "x", **options)
    for expected in (
        "row 2: there is no image",
        "row 3: label is empty",
        "row 4: image 'p0_0.png'",
    ):
        assert expected in str(caught.value)
    labels.write_text("sep=;\npath;label;annotated;split\np0_0.png;crack;maybe;training\n")
    with pytest.raises(PreceptorError, match=r"labels\.csv: 2 (.|\n)*row 3: annotated is 'maybe'"):
        imported_maps(source(tmp_path, 1), images, tmp_path / "x", labels=labels)
    labels.write_text("path,label,split\np0_0.png,crack,training\n")  # another split is made
    imported_maps(source(tmp_path, 1), images, tmp_path / "y", labels=labels, split={"train": 1.0})


def test_nothing_is_to_be_marked_in_one_class(tmp_path: Path, images: Path) -> None:
    """Of the common medical table: masks on some positives, normals, and unexamined positives."""
    labels = tmp_path / "labels.csv"
    rows = [f"p{n // 2}_{n}.png,{'crack' if n < 8 else 'normal'}" for n in range(12)]
    labels.write_text("path,label\n" + "\n".join(rows) + "\n")
    options: dict[str, Any] = {"labels": labels, "nothing_to_mark": ("normal",)}
    imported_maps(source(tmp_path, 4), images, tmp_path / "out", **options)
    found = table(tmp_path / "out")
    annotated = dict(zip(found["name"], found["annotated"], strict=True))
    assert [annotated[row.split(",")[0]] for row in rows] == [1, 0, 1, 0, *[0] * 4, *[1] * 4]
    # A black mask of a crack says that somebody looked at it.
    Image.new("L", (40, 30)).save(save_image(tmp_path / "masks" / "p0_1.png"))
    imported_maps(read_masks(tmp_path / "masks", images), images, tmp_path / "black", **options)
    assert table(tmp_path / "black")["annotated"].tolist() == [1, *[0] * 7, *[1] * 4]
    options["nothing_to_mark"] = ("norm",)
    with pytest.raises(PreceptorError, match=r"'norm': no image has this label.*crack, n"):
        imported_maps(source(tmp_path, 4), images, tmp_path / "x", **options)
    stated = [f"{row},{'' if n < 4 else n % 2}" for n, row in enumerate(rows)]
    labels.write_text("path,label,annotated\n" + "\n".join(stated) + "\n")
    imported_maps(source(tmp_path, 4), images, tmp_path / "both", labels=labels, unmarked="unknown")
    found = table(tmp_path / "both")
    annotated = dict(zip(found["name"], found["annotated"], strict=True))
    assert [annotated[row.split(",")[0]] for row in rows] == [1, 0, 1, 0, *[0, 1] * 4]
    labels.write_text("path,label,annotated\np0_0.png,crack,0\n")
    with pytest.raises(PreceptorError, match=r"p0_0\.png: has a map but annotated 0"):
        imported_maps(source(tmp_path, 1), images, tmp_path / "x", labels=labels)


def test_names_that_are_not_utf_8_are_problems(tmp_path: Path) -> None:
    """As of an archive of an older system."""
    save_image(tmp_path / "set" / "sound" / "a.png")
    save_image(tmp_path / "set" / "crack" / "a.png")
    own = tmp_path / "set" / "crack" / os.fsdecode(b"Stra\xdfe.png")
    try:
        save_image(tmp_path / "b.png").rename(own)
    except OSError:
        pytest.skip("the file system has names in Unicode alone")
    command = ["data", "import", "folders", tmp_path / "set", "--unmarked", "unknown", "--to"]
    refused = here(*command, tmp_path / "x")
    assert_refused(refused, [r"Stra\xdfe.png", "not UTF-8", "rename it"], problems=1)
    own.unlink()
    done = here(*command, tmp_path / "out")
    assert done.code == 0
    assert "note: no image has a map; check that masks have the names of their images" in done.out


def test_a_table_decides_on_several_classes_of_an_image(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png")
    path = tmp_path / "a.json"
    flags = {"fake": True, "blurred": True}
    path.write_text(json.dumps({"imagePath": "a.png", "shapes": [], "flags": flags}))
    command = ["data", "import", "labelme", path, "--images", tmp_path / "images"]
    refused = here(*command, "--to", tmp_path / "x")
    assert_refused(refused, ["gives it 2 classes ('blurred', 'fake')", "--labels"], problems=1)
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\na.png,attack\n")
    outcome = here(*command, "--to", tmp_path / "out", "--labels", labels)
    assert outcome.code == 0, outcome
    assert table(tmp_path / "out")["label"].tolist() == ["attack"]


def test_splits_keep_groups_together(tmp_path: Path, images: Path) -> None:
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    summary, _ = imported_maps(
        source(tmp_path),
        images,
        tmp_path / "out",
        unmarked="examined",
        split=shares,
        group_by=r"^(p\d+)_",
    )
    found = table(tmp_path / "out")
    assert summary.without_split == 0
    assert found.groupby("group")["split"].nunique().max() == 1
    assert found["split"].value_counts()["train"] == 6
    with pytest.raises(PreceptorError, match="12 problems"):
        imported_maps(
            source(tmp_path), images, tmp_path / "x", unmarked="examined", group_by="q[0-9]+"
        )
    with pytest.raises(PreceptorError, match=r"every image is in the group 'p'; put what differs"):
        imported_maps(source(tmp_path), images, tmp_path / "x", unmarked="examined", group_by="p")
    with pytest.raises(PreceptorError, match="it is no regular expression"):
        imported_maps(source(tmp_path), images, tmp_path / "x", unmarked="unknown", group_by="(")


def test_an_existing_folder_is_never_touched(tmp_path: Path, images: Path) -> None:
    (tmp_path / "out").mkdir()
    imported_maps(source(tmp_path), images, tmp_path / "out", unmarked="unknown")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PreceptorError, match="exists already"):
        write_import(source(tmp_path), images, tmp_path / "out", ImportOptions(unmarked="unknown"))
    with pytest.raises(PreceptorError, match="no such folder"):
        write_import(source(tmp_path), images, tmp_path / "no" / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_maps_of_images_that_differ_in_suffix_and_case(tmp_path: Path) -> None:
    names = ["a.png", "A.png", "a.jpg", "b/a.png"]
    for name in names:
        save_image(tmp_path / "images" / name)
    shapes = [{"image_id": n, "bbox": [n, 0, 9, 9]} for n in range(4)]
    path = save_json(tmp_path / "a.json", coco([{"file_name": name} for name in names], shapes))
    _, maps = imported_maps(read_coco(path), tmp_path / "images", tmp_path / "out")
    for number, name in enumerate(names):
        assert np.flatnonzero(maps[name].any(axis=0))[0] == number
    written = sorted(p.name for p in (tmp_path / "out" / "maps").glob("*.png"))
    assert len({name.casefold() for name in written}) == 3


def test_the_command(tmp_path: Path, images: Path) -> None:
    source(tmp_path)
    command = ["data", "import", "coco", tmp_path / "a.json", "--images", images, "--to"]
    refused = here(*command, tmp_path / "out")
    assert_refused(refused, ["6 of 12 images", "--unmarked examined"], problems=1)
    assert not (tmp_path / "out").exists()
    outcome = here(
        *command,
        tmp_path / "out",
        *flags(unmarked="examined", split="0.5,0.25,0.25", group_by=r"^(p\d+)_"),
    )
    assert (outcome.code, outcome.err) == (0, ""), outcome
    assert "12 images, 6 with a map" in outcome.out
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert record["options"]["unmarked"] == "examined"
    checked = here("data", "check", tmp_path / "out" / "manifest.csv")
    assert checked.code == 0, checked
    refused = here(*command, tmp_path / "x", "--unmarked", "unknown", "--split", "0.5,0.5")
    assert_refused(refused, ["--split"])
