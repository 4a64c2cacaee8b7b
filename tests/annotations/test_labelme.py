import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.annotations import read_labelme
from preceptor.annotations.shapes import Box, rasterize
from preceptor.errors import PreceptorError
from tests.annotations.trees import assert_import_refused, imported_maps, save_image, save_json
from tests.commands import here


def file(*shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": 30,
        "imageWidth": 40,
    } | more


def shape(kind: str = "rectangle", points: Any = ((1, 2), (11, 7)), **more: Any) -> dict[str, Any]:
    return {"label": "crack", "shape_type": kind, "points": points} | more


def png(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def bomb() -> str:
    """A small PNG file of 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    data += chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


def test_images_without_a_file_have_to_be_decided(tmp_path: Path) -> None:
    for name in "abc":
        save_image(tmp_path / f"{name}.png")
    save_json(tmp_path / "a.json", file(shape()))
    save_json(tmp_path / "b.json", file(imagePath="b.png"))
    imported = read_labelme(tmp_path)
    with pytest.raises(PreceptorError, match=r"1 of 3 images: .*--unmarked examined .* unknown"):
        imported_maps(imported, tmp_path, tmp_path / "out")
    _, maps = imported_maps(imported, tmp_path, tmp_path / "out", unmarked="unknown")
    assert (maps["a.png"] == rasterize([Box(1, 2, 10, 5)], 40, 30)).all()
    rows = (tmp_path / "out" / "manifest.csv").read_text().splitlines()
    assert [row.split(",")[5] for row in rows] == ["annotated", "1", "1"]


def test_the_folder_and_not_the_name_of_an_image_is_its_split(tmp_path: Path) -> None:
    source = tmp_path / "set"
    names = ["test_strip_01", "dev-board_3", "train-12", "val/train-12", "train/a/test 3"]
    for name in names:
        save_image(source / f"{name}.png")
        save_json(source / f"{name}.json", file(shape(), imagePath=f"{Path(name).name}.png"))
    found = {one.of: one.split for one in read_labelme(source)}
    assert [found[f"{name}.json"] for name in names] == ["", "", "", "val", "train"]
    assert [one.split for one in read_labelme(source / "val")] == ["val"]
    assert [one.split for one in read_labelme([source / "train-12.json"])] == [""]
    two = read_labelme([source / "train" / "a", source / "val"])
    assert sorted(one.split for one in two) == ["", "val"]
    save_image(source / "val" / "none.png")  # an image without a file
    options = ("--to", tmp_path / "out", "--unmarked", "examined")
    outcome = here("data", "import", "labelme", source, *options)
    assert outcome.code == 0, outcome
    assert "note: 3 images are in no split; add --split" in outcome.out
    assert "no image has a map" not in outcome.out
    splits = pd.read_csv(tmp_path / "out" / "manifest.csv").set_index("name")["split"]
    assert splits["val/none.png"] == "val"


def test_a_flag_is_the_class_of_the_image(tmp_path: Path) -> None:
    path = save_json(tmp_path / "a.json", file(flags={"fake": True, "real": False}))
    assert [one.labels for one in read_labelme(path)] == [("fake",)]


def test_a_path_to_another_folder_stays_in_the_folder_of_images(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png")
    path = save_json(tmp_path / "json" / "a.json", file(shape(), imagePath="..\\images\\a.png"))
    _, maps = imported_maps(read_labelme(path), tmp_path / "images", tmp_path / "out")
    assert list(maps) == ["a.png"]


BAD: list[tuple[str, Any, str]] = [
    ("list", [], "it is not a LabelMe file"),
    ("no path", file(imagePath=None), "imagePath is None"),
    ("size", file(imageWidth=0), "the size is 0 × 30"),
    ("no width", {k: v for k, v in file().items() if k != "imageWidth"}, "the size is None × 30"),
    ("kind", file(shape("cube")), "shape_type 'cube' is unknown"),
    ("kind in a list", file(shape() | {"shape_type": []}), "shape_type [] is unknown"),
    ("points", file(shape(points=[[1, 2]])), "points are [[1, 2]], not 2 or more"),
    ("nan", file(shape(points=[[1, float("nan")], [2, 2]])), "pairs of finite numbers"),
    ("empty", file(shape(points=[[1, 1], [1, 9]])), "the box is empty"),
    ("circle", file(shape("circle", [[5, 5], [5, 5]])), "the ellipse is empty"),
    ("no mask", file(shape("mask")), "mask is None, not base64 text"),
    ("mask", file(shape("mask", mask=base64.b64encode(b"x" * 99).decode())), "cannot be decoded"),
    ("mask size", file(shape("mask", mask=png(3, 3))), "it is 3×3, its points say"),
    ("bomb", file(shape("mask", [[0, 0], [59_999, 59_999]], mask=bomb())), "pixels) exceeds limit"),
    ("flags", file(flags={"a": True, "b": True}), "gives it 2 classes ('a', 'b')"),
]


@pytest.mark.parametrize(("value", "expected"), [one[1:] for one in BAD], ids=[b[0] for b in BAD])
def test_what_is_wrong_is_refused_by_row(tmp_path: Path, value: Any, expected: str) -> None:
    path = save_json(tmp_path / "j" / "a.json", value)
    assert_import_refused(lambda: read_labelme(path.parent), tmp_path / "images", expected)


def test_a_mask_may_leave_its_last_pixel_out(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    value = shape("mask", [[2, 3], [7, 9]], mask=png(5, 6))
    path = save_json(tmp_path / "a.json", file(value))
    _, maps = imported_maps(read_labelme(path), tmp_path, tmp_path / "out")
    assert np.argwhere(maps["a.png"]).min(0).tolist() == [3, 2]
    assert (maps["a.png"] > 0).sum() == 30
