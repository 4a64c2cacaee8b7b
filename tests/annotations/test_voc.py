from pathlib import Path

import pytest

from preceptor.annotations import read_voc
from preceptor.annotations.shapes import Box, Polygon
from tests.annotations.trees import assert_import_refused, images_of


def voc(*objects: str, name: str = "a.png", more: str = "", size: str = "40,30") -> str:
    wide, high = size.split(",")
    inside = f"<size><width>{wide}</width><height>{high}</height></size>{more}{''.join(objects)}"
    return f"<annotation><filename>{name}</filename>{inside}</annotation>"


def box(x: object = 1, y: object = 2, right: object = 11, bottom: object = 7, name: str = "crack"):  # type: ignore[no-untyped-def]
    corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"


def write(folder: Path, text: str, name: str = "a") -> Path:
    path = folder / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return folder


def test_boxes_of_the_development_kit_count_from_one(tmp_path: Path) -> None:
    source = "<source><database>{}</database></source>"
    write(tmp_path, voc(box(), more=source.format("The VOC2012 Database")))
    write(tmp_path, voc(box(), name="b.png", more=source.format("Unknown")), "b")
    found = images_of(read_voc(tmp_path))
    assert read_voc(tmp_path).whole_folder  # images without a file are left out or backgrounds
    assert found["a.png"].annotations[0].shape == Box(0, 1, 11, 6)
    assert found["b.png"].annotations[0].shape == Box(1, 2, 10, 5)


def test_a_box_that_was_turned_in_cvat(tmp_path: Path) -> None:
    stated = "<attribute><name>rotation</name><value>90.0</value></attribute>"
    turned = box().replace("</object>", f"<attributes>{stated}</attributes></object>")
    write(tmp_path, voc(turned))
    assert images_of(read_voc(tmp_path))["a.png"].annotations[0].shape == Box(1, 2, 10, 5, 90)


def test_polygons_of_objects(tmp_path: Path) -> None:
    points = "<x1>1</x1><y1>2</y1><x2>9</x2><y2>2</y2><x3>9</x3><y3>8</y3>"
    one = box().replace("</object>", f"<polygon>{points}</polygon></object>")
    write(tmp_path, voc(one))
    (found,) = images_of(read_voc(tmp_path))["a.png"].annotations
    assert isinstance(found.shape, Polygon)
    assert found.shape.rings[0].tolist() == [[1, 2], [9, 2], [9, 8]]


def test_the_folder_and_not_the_name_of_an_image_is_its_split(tmp_path: Path) -> None:
    names = ["a/train-12", "valid/b", "train/test 3"]
    for name in names:
        write(tmp_path / Path(name).parent, voc(box(), name=f"{name}.png"), Path(name).name)
    found = images_of(read_voc(tmp_path))
    assert sorted(one.split for one in found.values()) == ["", "train", "val"]
    assert [one.split for one in read_voc(tmp_path / "a")] == [""]


BAD = [
    ("empty", "", "not sound XML"),
    ("cut", voc(box())[:-40], "not sound XML"),
    ("root", "<annotations/>", "outermost element is <annotations>"),
    ("entities", '<!DOCTYPE a [<!ENTITY b "c">]>' + voc("&b;"), "declares XML entities"),
    ("filename", voc(name=""), "it has no filename"),
    ("size", voc(box(), size="x,30"), "the size is 'x' × '30'"),
    ("name", voc(box(name="")), "object 1: it has no name"),
    ("nan", voc(box("nan")), "xmin is 'nan'"),
    ("text", voc(box(bottom="")), "ymax is ''"),
    ("reversed", voc(box(30)), "the box is empty"),
]


@pytest.mark.parametrize(("text", "expected"), [one[1:] for one in BAD], ids=[b[0] for b in BAD])
def test_what_is_wrong_is_refused_by_row(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path / "voc", text)
    assert_import_refused(lambda: read_voc(tmp_path / "voc"), tmp_path / "images", expected)
