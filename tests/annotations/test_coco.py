import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from preceptor.annotations import read_coco
from preceptor.annotations.shapes import Box, Polygon, rasterize
from preceptor.errors import PreceptorError, ProblemsError
from tests.annotations.trees import (
    assert_import_refused,
    coco,
    images_of,
    imported_maps,
    iou,
    save_image,
    save_json,
)


def blob(x: float, y: float, radius: float, points: int = 40) -> list[float]:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)
    return [float(one) for one in ring.reshape(-1)]


def test_masks_agree_with_those_of_pycocotools(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    for number in range(40):
        x, y, radius = random.uniform([60, 60, 40], [240, 200, 90])
        parts = [blob(x, y, radius), blob(x + 50, y, radius / 2)][: 1 + number % 2]
        annotations.append({"segmentation": parts, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0})
    path = save_json(
        tmp_path / "a.json",
        coco([{"file_name": "a.png", "width": 300, "height": 260}], annotations),
    )
    theirs = COCO(str(path))
    others = theirs.loadAnns(theirs.getAnnIds())
    for one, other in zip(images_of(read_coco(path))["a.png"].annotations, others, strict=True):
        mask = theirs.annToMask(other)
        assert iou(rasterize([one.shape], 300, 260), mask) >= 0.99
        other["segmentation"] = theirs.annToRLE(other)
        other["segmentation"]["counts"] = other["segmentation"]["counts"].decode()
    compressed = save_json(tmp_path / "b.json", theirs.dataset)
    for one, other in zip(
        images_of(read_coco(compressed))["a.png"].annotations, others, strict=True
    ):
        assert (rasterize([one.shape], 300, 260) == theirs.annToMask(other) * 255).all()


def test_it_becomes_a_manifest(tmp_path: Path) -> None:
    for name in ("a.png", "b c.png", "é?.png"):
        save_image(tmp_path / "images" / name)
    path = save_json(
        tmp_path / "instances_val2017.json",
        coco(
            [{"file_name": "a.png"}, {"file_name": "b%20c.png"}, {"file_name": "e\u0301?.png"}],
            [{"bbox": [1, 2, 10, 5]}, {"image_id": 2, "bbox": [0, 0, 4, 4]}],
        ),
    )
    summary, maps = imported_maps(
        read_coco(path), tmp_path / "images", tmp_path / "out", unmarked="examined"
    )
    assert (summary.images, summary.maps) == (3, 2)
    assert (maps["a.png"] == rasterize([Box(1, 2, 10, 5)], 40, 30)).all()
    rows = (tmp_path / "out" / "manifest.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("path,name,label,split,saliency,annotated")
    assert rows[2].startswith("../images/b c.png,b c.png,negative,val,,1")
    record = json.loads((tmp_path / "out" / "import.json").read_text(encoding="utf-8"))
    assert record["format"] == "coco"
    assert record["options"]["unmarked"] == "examined"


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_stated_size_decides_the_frame(tmp_path: Path, orientation: int) -> None:
    save_image(tmp_path / "a.jpg", 40, 30, orientation)
    for width, height in ((40, 30), (30, 40)):
        file = coco(
            [{"file_name": "a.jpg", "width": width, "height": height}], [{"bbox": [0, 0, 9, 5]}]
        )
        path = save_json(tmp_path / f"{width}.json", file)
        if orientation == 3 and width == 30:
            with pytest.raises(ProblemsError, match=r"annotations are for 30×40, the image is 40"):
                imported_maps(read_coco(path), tmp_path, tmp_path / f"out{width}")
            continue
        _, maps = imported_maps(read_coco(path), tmp_path, tmp_path / f"out{width}")
        drawn = rasterize([Box(0, 0, 9, 5)], width, height)
        if width == 40 and orientation != 3:  # annotated as stored: turned with the image
            turned = {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}[orientation]
            drawn = np.asarray(Image.fromarray(drawn).transpose(turned))
        assert (maps["a.jpg"] == drawn).all()


def test_a_box_that_was_turned_in_cvat(tmp_path: Path) -> None:
    turned = {"bbox": [10, 12, 20, 6], "attributes": {"occluded": False, "rotation": 90.0}}
    (read,) = images_of(read_coco(save_json(tmp_path / "a.json", coco(ONE, [turned])))).values()
    assert read.annotations[0].shape == Box(10, 12, 20, 6, 90)


ONE = [{"file_name": "a.png"}]
BAD: list[tuple[str, Any, str]] = [
    ("list", [], "it is not a COCO file"),
    ("text", "x", "not a COCO file"),
    ("no categories", {"images": [], "annotations": []}, "categories missing"),
    ("not lists", {"images": {}, "annotations": [], "categories": []}, "images missing"),
    ("no name", coco([{"file_name": None}], []), "images[0]: file_name is None"),
    ("image", coco([{"file_name": "b.png"}], []), "images[0] b.png: there is no image 'b.png'"),
    ("size", coco([{"file_name": "a.png", "width": 41}], []), "for 41×30, the image is 40×30"),
    ("no size", coco([{"file_name": "a.png", "width": "x"}], []), "the size is 'x' × 30"),
    ("outside", coco(ONE, [{"bbox": [50, 1, 2, 2]}]), "box lies outside the image of 40×30"),
    ("empty", coco(ONE, [{"bbox": [5, 1, 0, 2]}]), "the box is empty"),
    ("nan", coco(ONE, [{"bbox": [float("nan"), 1, 2, 2]}]), "a number of bbox is nan"),
    (
        "nan in a polygon",
        coco(ONE, [{"segmentation": [[1, 1, float("inf"), 3, 3, 3]]}]),
        "pairs of finite numbers",
    ),
    ("short", coco(ONE, [{"segmentation": [[1, 1, 3, 3]]}]), "not 3 or more pairs"),
    ("text in it", coco(ONE, [{"segmentation": [[1, 1, 3, 3, "x", 4]]}]), "not 3 or more pairs"),
    ("class", coco(ONE, [{"bbox": [1, 1, 2, 2], "category_id": 9}]), "there is no category 9"),
    (
        "large class",
        coco(ONE, [{"bbox": [1, 1, 2, 2], "category_id": 10**20}]),
        "category_id is 100000000000000000000, not a whole",
    ),
    ("large id", coco([{"file_name": "a.png", "id": 2**63}], []), "id is 9223372036854775808"),
    ("id", coco(ONE, [{"bbox": [1, 1, 2, 2], "image_id": 9}]), "no image with the id 9"),
    (
        "rle",
        coco(ONE, [{"segmentation": {"size": [30, 40], "counts": [1, 2]}}]),
        "counts do not add up",
    ),
    (
        "bomb",
        coco(ONE, [{"segmentation": {"size": [10**5, 10**6], "counts": [10**11]}}]),
        "the mask is 1000000×100000, the image 40×30",
    ),
    (
        "rle of another size",
        coco(ONE, [{"segmentation": {"size": [2, 2], "counts": [0, 4]}}]),
        "the mask is 2×2, the image 40×30",
    ),
    ("twice", coco([*ONE, *ONE], []), "'a.png' is listed already"),
    ("traversal", coco([{"file_name": "x/../x/a.png"}], []), "leads out of the folder"),
]


@pytest.mark.parametrize(("file", "expected"), [one[1:] for one in BAD], ids=[b[0] for b in BAD])
def test_what_is_wrong_is_refused_by_row(tmp_path: Path, file: Any, expected: str) -> None:
    path = save_json(tmp_path / "a.json", file)
    assert_import_refused(lambda: read_coco(path), tmp_path / "images", expected)


@pytest.mark.parametrize("cut", [0, 1, 20, 100, 200])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    text = json.dumps(coco(ONE, [{"bbox": [1, 2, 3, 4]}]))
    (tmp_path / "a.json").write_text(text[: len(text) - 1 - cut])
    with pytest.raises(PreceptorError, match="not sound JSON"):
        read_coco(tmp_path / "a.json")


def test_an_empty_ring_is_left_out(tmp_path: Path) -> None:
    rings = [[], [1, 1, 9, 1, 9, 9]]
    file = coco(ONE, [{"segmentation": rings}, {"segmentation": [[]], "bbox": [2, 2, 4, 4]}])
    found = images_of(read_coco(save_json(tmp_path / "a_train_val.json", file)))["a.png"]
    assert found.split == ""
    polygon, box = (one.shape for one in found.annotations)
    assert isinstance(polygon, Polygon)
    assert len(polygon.rings) == 1
    assert isinstance(box, Box)


def test_splits_come_from_several_files(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        save_image(tmp_path / split / "a.png")
        file = coco([{"file_name": "a.png"}], [{"bbox": [1, 1, 4, 4]}])
        save_json(tmp_path / split / "_annotations.coco.json", file)
    found = list(read_coco(tmp_path))
    assert [one.split for one in found] == ["train", "val"]


def test_a_folder_with_instances_has_no_other_files(tmp_path: Path) -> None:
    for name in ("instances_train.json", "image_info_train.json", "captions.json"):
        save_json(tmp_path / name, coco([{"file_name": "a.png"}], []))
    assert len(list(read_coco(tmp_path))) == 1
