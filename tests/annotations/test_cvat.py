from pathlib import Path

import numpy as np
import pytest

from preceptor.annotations import read_cvat
from preceptor.annotations.shapes import Box, Ellipse, Mask, Polyline
from tests.annotations.trees import assert_import_refused, images_of, notes_of

META = "<version>1.1</version><meta><task><labels><label><name>crack</name></label></labels></task>"


def xml(body: str, head: str = "") -> str:
    return f"{head}<annotations>{META}</meta>{body}</annotations>"


def image(inside: str, name: str = "a.png", more: str = 'width="40" height="30"') -> str:
    return f'<image id="0" name="{name}" {more}>{inside}</image>'


def read(folder: Path, text: str):  # type: ignore[no-untyped-def]
    (folder / "annotations.xml").write_text(text, encoding="utf-8")
    return read_cvat(folder)


def test_all_shapes(tmp_path: Path) -> None:
    part = np.zeros((4, 6), np.uint8)
    part[1:3, 2:] = 1
    inside = (
        '<box label="crack" xtl="1" ytl="2" xbr="11" ybr="6" rotation="30.5"/>'
        '<ellipse label="crack" cx="10" cy="12" rx="3" ry="4"/>'
        '<polyline label="crack" points="1,1;5.5,6"/>'
        '<mask label="crack" rle="8, 4, 2, 4, 6" left="3" top="4" width="6" height="4"/>'
        '<box label="crack" source="auto" xtl="1" ytl="2" xbr="3" ybr="4"/>'
    )
    imported = read(tmp_path, xml(image(inside)))
    assert imported.classes == ["crack"]
    box, ellipse, line, mask = images_of(imported)["a.png"].annotations
    assert box.shape == Box(1, 2, 10, 4, 30.5)
    assert ellipse.shape == Ellipse(10, 12, 3, 4)
    assert isinstance(line.shape, Polyline)
    assert isinstance(mask.shape, Mask)
    assert (mask.shape.pixels == part * 255).all()
    assert (mask.shape.x, mask.shape.y) == (3, 4)
    assert notes_of(imported) == {"marks of models are not read": 1}


def test_tags_and_subsets(tmp_path: Path) -> None:
    text = xml(
        image('<tag label="fake"/>', more='width="40" height="30" subset="Validation"')
        + image('<tag label="real" source="auto"/>', "b.png")
    )
    one, other = read(tmp_path, text)
    assert (one.labels, one.split, one.examined) == (("fake",), "val", None)
    assert (other.labels, other.split, other.examined) == ((), "", None)


ENTITY = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]>'
BAD = [
    ("empty", "", "not sound XML"),
    ("cut", xml(image("<box"))[:-60], "not sound XML"),
    ("root", "<annotation></annotation>", "outermost element is <annotation>"),
    ("entities", xml(image("&b;"), ENTITY), "declares XML entities"),
    ("external", xml(image(""), '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hosts">]>'), "entit"),
    ("video", xml('<track id="0" label="crack"></track>'), "of a video"),
    ("no size", xml(image("", more="")), "it has no width and height"),
    ("no name", xml(image("", "")), "image 0: it has no name"),
    ("nan", xml(image('<box xtl="nan" ytl="1" xbr="2" ybr="2"/>')), "xtl is 'nan'"),
    ("absent", xml(image('<box xtl="1" ytl="1" xbr="2"/>')), "ybr is None"),
    ("reversed", xml(image('<box xtl="9" ytl="1" xbr="2" ybr="2"/>')), "the box is empty"),
    ("points", xml(image('<polygon points="1,2;3,4"/>')), "not 3 or more"),
    ("pair", xml(image('<polyline points="1,2;3"/>')), "not 2 or more"),
    ("rle", xml(image('<mask rle="1,x" left="0" top="0" width="2" height="2"/>')), "count is 'x'"),
    ("counts", xml(image('<mask rle="1,2" left="0" top="0" width="2" height="2"/>')), "not add up"),
    ("large", xml(image('<mask rle="9" left="0" top="0" width="99" height="2"/>')), "leaves"),
    ("skeleton", xml(image('<skeleton label="a"></skeleton>')), "<skeleton> is not read"),
    ("cuboid", xml(image('<cuboid label="a"/>')), "<cuboid> is not read"),
    ("tags", xml(image('<tag label="a"/><tag label="b"/>')), "gives it 2 classes ('a', 'b')"),
]


@pytest.mark.parametrize(("text", "expected"), [one[1:] for one in BAD], ids=[b[0] for b in BAD])
def test_what_is_wrong_is_refused_by_row(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
    assert_import_refused(lambda: read_cvat(tmp_path), tmp_path / "images", expected)
