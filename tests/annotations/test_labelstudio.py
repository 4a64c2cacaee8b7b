from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preceptor.annotations import read_labelstudio
from preceptor.annotations.shapes import Box, Ellipse, Points, Polygon, rasterize
from tests.annotations.trees import (
    assert_import_refused,
    images_of,
    imported_maps,
    iou,
    notes_of,
    save_image,
    save_json,
)


def result(kind: str, label: str = "crack", **value: Any) -> dict[str, Any]:
    return {
        "type": f"{kind}labels",
        "to_name": "image",
        "from_name": "label",
        "image_rotation": 0,
        "original_width": 40,
        "original_height": 30,
        "value": value | {f"{kind}labels": [label]},
    }


def choice(*chosen: object) -> dict[str, Any]:
    return {"type": "choices", "to_name": "image", "value": {"choices": list(chosen)}}


def by(person: object, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"completed_by": person, "result": list(results)} | more


def task(*annotations: dict[str, Any], image: str = "a.png", **more: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": list(annotations)} | more


BOX = result("rectangle", x=10, y=20, width=50, height=40, rotation=0)


def test_percent_become_pixels(tmp_path: Path) -> None:
    path = save_json(
        tmp_path / "a.json",
        [
            task(
                by(
                    1,
                    BOX,
                    result("polygon", points=[[0, 0], [50, 0], [50, 100]]),
                    result("ellipse", x=50, y=50, radiusX=25, radiusY=20, rotation=10),
                    result("keypoint", x=25, y=50, width=5),
                )
            )
        ],
    )
    box, polygon, ellipse, point = (
        one.shape for one in images_of(read_labelstudio(path))["a.png"].annotations
    )
    assert box == Box(4, 6, 20, 12)
    assert isinstance(polygon, Polygon)
    assert polygon.rings[0].tolist() == [[0, 0], [20, 0], [20, 30]]
    assert ellipse == Ellipse(20, 15, 10, 6, 10)
    assert isinstance(point, Points)
    assert point.points.tolist() == [[10, 15]]


@pytest.mark.parametrize("degrees", [15, 90, 200, -30])
def test_a_rectangle_turns_about_its_upper_left_corner(tmp_path: Path, degrees: float) -> None:
    turned = result("rectangle", x=45, y=40, width=30, height=20, rotation=degrees)
    path = save_json(tmp_path / "a.json", [task(by(1, turned))])
    (found,) = images_of(read_labelstudio(path))["a.png"].annotations
    angle = np.radians(degrees)
    across = 12 * np.array([np.cos(angle), np.sin(angle)])
    down = 6 * np.array([-np.sin(angle), np.cos(angle)])
    corner = np.array([18.0, 12.0])
    ring = np.array([corner, corner + across, corner + across + down, corner + down])
    assert iou(rasterize([found.shape], 40, 30), rasterize([Polygon((ring,))], 40, 30)) == 1


def test_people_are_kept_apart_and_predictions_ignored(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png")
    small = result("rectangle", x=10, y=20, width=25, height=40, rotation=0)
    far = result("rectangle", x=90, y=80, width=10, height=20, rotation=0)
    path = save_json(
        tmp_path / "a.json",
        [
            task(
                by({"email": "ann@lab.org"}, BOX),
                by({"email": "bob@lab.org"}, small),
                by({"email": "cy@lab.org"}, far, was_cancelled=True),
                predictions=[{"model_version": "m1", "result": [far]}],
            )
        ],
    )
    imported = read_labelstudio(path)
    (image,) = imported
    assert [one.annotator for one in image.annotations] == ["ann@lab.org", "bob@lab.org"]
    summary, maps = imported_maps(imported, tmp_path / "images", tmp_path / "out")
    assert summary.annotators == ("ann@lab.org", "bob@lab.org")
    assert np.unique(maps["a.png"]).tolist() == [0, 128, 255]
    alone = np.asarray(
        Image.open(tmp_path / "out" / "annotators" / "bob@lab.org" / "a.png").convert("L")
    )
    assert (alone == rasterize([Box(4, 6, 10, 12)], 40, 30)).all()


def test_names_of_uploads_and_local_files(tmp_path: Path) -> None:
    names = ["a b.png", "c.png", "d é.png", "e.png", "f 7 (left), é.png"]
    for name in names:
        save_image(tmp_path / "images" / name)
    urls = [
        "/data/local-files/?d=set/a%20b.png",
        "/data/upload/3/0123abcd-c.png",
        "https://host.example/x/d%20%C3%A9.png?size=2",
        "s3://bucket/e.png",
        "/data/upload/1/ed107809-f_7_left_é.png",
    ]
    path = save_json(tmp_path / "a.json", [task(by(1, BOX), image=url) for url in urls])
    _, maps = imported_maps(read_labelstudio(path), tmp_path / "images", tmp_path / "out")
    assert sorted(maps) == names


def test_a_choice_is_the_class_of_the_image(tmp_path: Path) -> None:
    path = save_json(tmp_path / "a.json", [task(by(1, BOX, choice("fake")))])
    assert [one.labels for one in read_labelstudio(path)] == [("fake",)]


@pytest.mark.parametrize("stated", ["id", "geometry", "both"])
def test_a_choice_on_a_shape_is_not_the_class_of_the_image(tmp_path: Path, stated: str) -> None:
    save_image(tmp_path / "images" / "a.png")
    chosen = choice("deep")
    if stated != "geometry":
        chosen["id"] = "r1"
    if stated != "id":
        chosen["value"] |= {key: BOX["value"][key] for key in ("x", "y", "width", "height")}
    path = save_json(tmp_path / "a.json", [task(by(1, BOX | {"id": "r1"}, chosen))])
    imported = read_labelstudio(path)
    assert notes_of(imported) == {"choices that belong to a single shape are not read": 1}
    imported_maps(imported, tmp_path / "images", tmp_path / "out")
    assert ",crack," in (tmp_path / "out" / "manifest.csv").read_text()


def runs(*pixels: tuple[int, int]) -> list[int]:
    """Brush stroke in bytes: a length and an opacity for each run of pixels."""
    total = sum(length for length, _ in pixels)
    bits = f"{4 * total:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits += "".join(f"1{3:02b}{4 * length - 1:016b}{value:08b}" for length, value in pixels)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


BAD: list[tuple[str, Any, str]] = [
    ("object", {"a": 1}, "not a Label Studio export"),
    ("JSON_MIN", [{"image": "a.png", "label": []}], "tasks[0]: "),
    (
        "no image",
        [{"data": {"image": 3}, "annotations": []}],
        "there is no image in data (keys: image)",
    ),
    ("no object", [task(annotations=["later"])], "'later' has no list of results"),
    ("no result", [task({"completed_by": 1})], "has no list of results"),
    ("size", [task(by(1, BOX | {"original_width": 0}))], "the size is 0 × 30"),
    ("two sizes", [task(by(1, BOX, BOX | {"original_width": 41}))], "another size of the image"),
    ("nan", [task(by(1, result("rectangle", x=float("nan"), y=1, width=1, height=1)))], "x is nan"),
    ("text", [task(by(1, result("ellipse", x=1, y="b", radiusX=1, radiusY=1)))], "y is 'b'"),
    ("outside", [task(by(1, result("rectangle", x=101, y=1, width=9, height=9)))], "lies outside"),
    ("empty", [task(by(1, result("rectangle", x=1, y=1, width=0, height=9)))], "the box is empty"),
    ("two points", [task(by(1, result("polygon", points=[[1, 1], [2, 2]])))], "3 or more pairs"),
    ("rle", [task(by(1, result("brush", format="rle", rle=[0, 1, 2])))], "the RLE has"),
    (
        "cut",
        [task(by(1, result("brush", rle=runs((600, 0), (600, 255))[:-1])))],
        "the RLE is cut short",
    ),
    ("bytes", [task(by(1, result("brush", rle=[300])))], "whole numbers from 0 to 255"),
    ("no rle", [task(by(1, result("brush", format="image")))], "the RLE is not a list"),
    ("labels", [task(by(1, BOX | {"type": "labels"}))], "the tag Labels is not read"),
    ("bitmask", [task(by(1, result("bitmask", imageDataURL="")))], "bitmasklabels is not read"),
    ("vector", [task(by(1, result("vector", vertices=[])))], "vectorlabels is not read"),
    ("turned", [task(by(1, BOX | {"image_rotation": 90}))], "was turned by 90°"),
    ("choices", [task(by(1, choice("a"), choice("b")))], "gives it 2 classes ('a', 'b')"),
    ("several choices", [task(by(1, choice("a", "b")))], "gives it 2 classes ('a', 'b')"),
    ("no choice", [task(by(1, choice(3)))], "choices are [3]"),
]


@pytest.mark.parametrize(("file", "expected"), [one[1:] for one in BAD], ids=[b[0] for b in BAD])
def test_what_is_wrong_is_refused_by_row(tmp_path: Path, file: Any, expected: str) -> None:
    path = save_json(tmp_path / "a.json", file)
    assert_import_refused(lambda: read_labelstudio(path), tmp_path / "images", expected)
