"""Points of four tools: discs on the evidence, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.annotations import (
    read_coco,
    read_cvat,
    read_labelstudio,
    read_points,
)
from preceptor.annotations.export import manifest_images, write_export
from preceptor.annotations.shapes import POINT_RADIUS, ImportedAnnotations, Points, rasterize
from preceptor.annotations.write import POINTS
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, PreceptorError
from tests.annotations.fixtures import HEIGHT, WIDTH
from tests.annotations.trees import coco, imported_maps, save_image, save_json
from tests.commands import here

FIXTURES = Path(__file__).parent / "fixtures"
IMAGES, CLICKS = FIXTURES / "images", [(150, 140), (60.5, 41)]
READ: dict[str, Callable[[], ImportedAnnotations]] = {
    "coco": lambda: read_coco(FIXTURES / "points" / "person_keypoints_default.json"),
    "labelstudio": lambda: read_labelstudio(FIXTURES / "points" / "label studio.json"),
    "cvat": lambda: read_cvat(FIXTURES / "points" / "cvat.xml"),
    "csv": lambda: read_points(FIXTURES / "points" / "clicks.csv"),
}


def discs() -> np.ndarray:
    """The pixels whose centers are near a point, by a slow and obvious way."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    near = [np.hypot(x - a, y - b) < POINT_RADIUS * min(WIDTH, HEIGHT) for a, b in CLICKS]
    return np.logical_or(*near)


@pytest.mark.parametrize("name", READ)
def test_points_become_discs(name: str, tmp_path: Path) -> None:
    _, maps = imported_maps(READ[name](), IMAGES, tmp_path / "out", unmarked="examined")
    assert list(maps) == ["scan a.jpg"]
    assert ((maps["scan a.jpg"] > 0) != discs()).sum() <= 4  # a chord is near its arc
    table = pd.read_csv(tmp_path / "out" / "manifest.csv", keep_default_na=False)
    assert table["label"].tolist() == ["crack", "negative"]
    assert table["annotated"].tolist() == [1, 1]
    assert table[POINTS].tolist() == ["150,140;60.5,41", ""]


def test_exported_points_come_back(tmp_path: Path) -> None:
    imported_maps(READ["csv"](), IMAGES, tmp_path / "first")
    manifest = Manifest.read(tmp_path / "first" / "manifest.csv", need=())
    write_export("coco", manifest_images(manifest), tmp_path / "coco")
    back = read_coco(tmp_path / "coco" / "annotations.json")
    (image,) = [one for one in back if one.annotations]
    shapes = [one.shape for one in image.annotations]
    assert [one.points.tolist()[0] for one in shapes if isinstance(one, Points)] == [
        list(one) for one in CLICKS
    ]
    first = np.asarray(rasterize(shapes, WIDTH, HEIGHT))
    _, maps = imported_maps(back, IMAGES, tmp_path / "again", unmarked="examined")
    assert (maps["scan a.jpg"] == first).all()
    manifest.table.loc[0, POINTS] = "here"
    with pytest.raises(InputError, match="mark_points is 'here', not x,y;x,y"):
        write_export("coco", manifest_images(manifest), tmp_path / "wrong")


def test_the_command(tmp_path: Path) -> None:
    file = FIXTURES / "points" / "clicks.csv"
    done = here("data", "import", "points", file, "--images", IMAGES, "--to", tmp_path / "out")
    assert done.code == 0, done
    assert "2 images, 1 with a map" in done.out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,x\na.png,1\n", "column 'y' is missing"),
        ("path,x,y\na.png,1,b\n", "row 2: y is 'b', not a finite number; correct or remove"),
        ("path,x,y\na.png,,3\n", "row 2: x is '', not a finite number"),
        ("path,x,y\n,1,3\n", "row 2: path is empty"),
        ("path,x,y\na.png,41,3\n", "row 2: the points lies outside the image of 40×30"),
        ("path,x,y\nb.png,1,3\n", "there is no image 'b.png'"),
    ],
)
def test_rows_that_are_wrong(text: str, expected: str, tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png")
    (tmp_path / "clicks.csv").write_text(text)
    with pytest.raises(PreceptorError) as caught:
        imported_maps(read_points(tmp_path / "clicks.csv"), tmp_path / "images", tmp_path / "out")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [([1, 2], "not x, y, visibility"), ([1, None, 2], "not 1 or more pairs"), ("1", "visibility")],
)
def test_key_points_that_are_wrong(keys: Any, expected: str, tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png")
    file = coco([{"file_name": "a.png"}], [{"keypoints": keys, "bbox": [1, 2, 3, 4]}])
    path = save_json(tmp_path / "a.json", file)
    with pytest.raises(PreceptorError, match=expected):
        imported_maps(read_coco(path), tmp_path / "images", tmp_path / "out")


def test_key_points_that_are_not_marked_leave_the_box(tmp_path: Path) -> None:
    file = coco([{"file_name": "a.png"}], [{"keypoints": [0, 0, 0], "bbox": [1, 2, 3, 4]}])
    (image,) = read_coco(save_json(tmp_path / "a.json", file))
    assert type(image.annotations[0].shape).__name__ == "Box"
