"""Maps that are exported, and imported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from preceptor import annotations as importers
from preceptor.annotations import ImportOptions, write_import
from preceptor.annotations.export import (
    FORMATS,
    ExportedImage,
    file_of,
    manifest_images,
    write_export,
)
from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import content_pixels, normalized, over_image, render
from preceptor.data.manifest import Manifest
from preceptor.errors import ProblemsError
from tests.annotations.trees import NAMES, iou, marked_manifest, save_image
from tests.commands import here


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    manifest = Manifest.read(marked_manifest(tmp_path / "in"), need=())
    (tmp_path / "in" / "maps" / "1.png").write_bytes(b"no image")
    (tmp_path / "in" / "images" / NAMES[3]).write_bytes(b"")
    with pytest.raises(ProblemsError) as caught:
        write_export(name, manifest_images(manifest), tmp_path / "out")
    assert [one.where for one in caught.value.problems] == [f"images/{NAMES[k]}" for k in (1, 3)]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]


def test_weak_marks_are_exported_and_an_empty_map_is_none(tmp_path: Path) -> None:
    row = pd.Series({"name": "a.png", "label": "x", "annotated": True})
    weak = np.zeros((4, 4), np.float32)
    weak[1, 1:3] = 0.2, 0.05
    marks = ExportedImage(row, (4, 4), weak).mask()
    np.testing.assert_array_equal(np.argwhere(marks), [[1, 1]])
    assert not ExportedImage(row, (4, 4), np.zeros_like(weak)).mask().any()


def test_a_map_of_another_size_is_resampled_by_areas(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 8, 4)
    Image.fromarray(np.array([[255, 0]], np.uint8)).save(tmp_path / "map.png")
    frame = pd.DataFrame({"path": ["a.png"], "label": ["x"], "saliency": ["map.png"]})
    manifest = Manifest.from_frame(frame, tmp_path, need=())
    write_export("masks", manifest_images(manifest), tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    assert (mask == np.array([255] * 4 + [0] * 4)).all()
    assert mask.shape == (4, 8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_masks_of_0_and_1_are_exported(tmp_path: Path, kind: type) -> None:
    save_image(tmp_path / "a.png", 8, 4)
    inside = np.zeros((4, 8), kind)
    inside[1:3, 2:6] = 1
    Image.fromarray(inside).save(tmp_path / "map.png")
    frame = pd.DataFrame({"path": ["a.png"], "label": ["x"], "saliency": ["map.png"]})
    manifest = Manifest.from_frame(frame, tmp_path, need=())
    done = write_export("masks", manifest_images(manifest), tmp_path / "out")
    assert done == (1, 1)
    assert (np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")) == inside * 255).all()


def test_files_stay_in_the_folder(tmp_path: Path) -> None:
    taken: set[str] = set()
    for image, file in (
        ("../../x.jpg", "x.png"),
        ("/etc/X.png", "etc/X.png"),
        ("etc/x.bmp", "etc/x.bmp.png"),
    ):
        assert file_of(image, ".png", tmp_path, taken) == tmp_path / file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco", "manifest.csv", "--to", "in"], "in exists already"),
        (["coco", "manifest.csv", "--to", "no/out"], "there is no such folder"),
        (["coco", "missing.csv", "--to", "out"], "there is no such file"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    marked_manifest(tmp_path / "in")
    places = {"manifest.csv": tmp_path / "in" / "manifest.csv"}
    placed = [
        places.get(one, tmp_path / one)
        if one in places or "/" in one or one in ("in", "out")
        else one
        for one in arguments
    ]
    outcome = here("data", "export", *placed)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_pycocotools_reads_the_same_masks(manifest: Path, tmp_path: Path) -> None:
    """It rounds the points of polygons, so that pixels at the border may differ."""
    theirs = COCO(exported(manifest, "coco", tmp_path / "out") / "annotations.json")
    maps = Manifest.read(manifest, need=()).table.set_index("name")["saliency"]
    for number, image in theirs.imgs.items():
        whole = np.zeros((image["height"], image["width"]), np.uint8)
        for one in theirs.imgToAnns[number]:
            whole |= theirs.annToMask(one)
        stored = maps[image["file_name"]]
        if not stored:
            assert not whole.any()
            continue
        mask = np.asarray(Image.open(stored)) > 0
        depth = ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)
        assert not ((whole > 0) != mask)[depth > 2].any()
        assert iou(mask, whole) > 0.95


FILES = {
    "masks": "masks",
    "coco": "annotations.json",
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marked_manifest(tmp_path_factory.mktemp("manifest"))


def exported(manifest: Path, name: str, to: Path) -> Path:
    write_export(name, manifest_images(Manifest.read(manifest, need=())), to)
    return to


def imported(
    name: str, folder: Path, images: Path, to: Path, unmarked: Literal["examined", "unknown"]
) -> pd.DataFrame:
    """Table of the manifest of an import, by name."""
    read = getattr(importers, f"read_{name}")
    options = ImportOptions(labels=folder / "labels.csv", unmarked=unmarked)
    write_import(read(folder / FILES[name]), images, to, options)
    return Manifest.read(to / "manifest.csv", need=()).table.set_index("name")


def map_of(row: pd.Series) -> np.ndarray:
    if row["saliency"]:
        return np.asarray(Image.open(row["saliency"]).convert("L"))
    return np.zeros(1, np.uint8)


@pytest.mark.parametrize("name", sorted(FILES))
def test_labels_and_maps_come_back_exactly(manifest: Path, tmp_path: Path, name: str) -> None:
    folder = exported(manifest, name, tmp_path / "out")
    found = imported(name, folder, manifest.parent / "images", tmp_path / "back", "unknown")
    before = Manifest.read(manifest, need=()).table.set_index("name")
    assert sorted(found.index) == sorted(NAMES)
    columns = ["label", "split", "group", "annotated", "map_weight", "annotation_seconds"]
    for image in NAMES:
        one, other = before.loc[f"images/{image}"], found.loc[image]
        pd.testing.assert_series_equal(one[columns], other[columns], check_names=False)
        assert np.array_equal(map_of(one), map_of(other)), image


def test_gray_maps_come_back_exactly_as_masks(tmp_path: Path) -> None:
    manifest = marked_manifest(tmp_path / "in", gray=True)
    folder = exported(manifest, "masks", tmp_path / "out")
    found = imported("masks", folder, manifest.parent / "images", tmp_path / "back", "examined")
    before = Manifest.read(manifest, need=()).table.set_index("name")
    for image in NAMES:
        assert np.array_equal(map_of(before.loc[f"images/{image}"]), map_of(found.loc[image]))


SIDE = 64


def spot(width: int, height: int, x: float, y: float) -> np.ndarray:
    down, across = np.mgrid[:height, :width]
    away = ((across - x) ** 2 + (down - y) ** 2) / (0.12 * min(width, height)) ** 2
    return np.exp(-0.5 * away).astype(np.float32)


@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(150, 90), (70, 130), (64, 64)])
def test_a_map_lies_where_the_model_saw_it(fit: Any, size: tuple[int, int]) -> None:
    """A spot of the image, seen on the canvas and cut into cells, comes back to its place."""
    width, height = size
    truth = spot(width, height, width * 0.45, height * 0.55)
    pixels = np.rint(truth * 255).astype(np.uint8)[..., None]
    canvas = render(pixels, fit, SIDE)[..., 0].astype(np.float32)
    left, top, inner_width, inner_height = content_pixels(width, height, fit, SIDE)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top : top + inner_height, left : left + inner_width] = True
    cells = np.where(inside, canvas, 0).reshape(16, 4, 16, 4).mean(axis=(1, 3))
    found = over_image(normalized(cells), ImageFormat(SIDE, fit), size)
    assert found.shape == (height, width)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.95
    rows, columns = np.mgrid[:height, :width]
    strong = found >= 0.5
    assert columns[strong].mean() == pytest.approx(width * 0.45, abs=width / 32)
    assert rows[strong].mean() == pytest.approx(height * 0.55, abs=height / 32)
