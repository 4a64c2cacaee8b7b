"""Files that the tools' own libraries have written (fixtures/README.md)."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preceptor.annotations import (
    read_coco,
    read_cvat,
    read_labelme,
    read_labelstudio,
    read_voc,
    read_yolo,
)
from preceptor.annotations.shapes import (
    AnnotatedImage,
    Box,
    Ellipse,
    ImportedAnnotations,
    Mask,
    Pixels,
    Points,
    Polygon,
    Polyline,
    rasterize,
)
from tests.annotations.fixtures import BOX, HEIGHT, POLYGON, WIDTH, disk
from tests.annotations.trees import images_of, imported_maps, iou

HERE = Path(__file__).parent / "fixtures"
SV = HERE / "supervision"
READ = {
    "coco": lambda kind: read_coco(SV / kind / "coco.json"),
    "yolo": lambda kind: read_yolo(SV / kind / "yolo" / "data.yaml", HERE / "images"),
    "voc": lambda kind: read_voc(SV / kind / "voc"),
}


def drawn(image: AnnotatedImage, label: str) -> Pixels:
    shapes = [one.shape for one in image.annotations if one.label == label]
    assert shapes
    return rasterize(shapes, WIDTH, HEIGHT)


def truth(name: str) -> Pixels:
    return np.asarray(Image.open(SV / f"{name}.png")).astype(np.uint8) * 255


@pytest.mark.parametrize("name", READ)
def test_boxes_of_supervision(name: str) -> None:
    found = images_of(READ[name]("boxes"))
    assert sorted(found) == ["scan a.jpg", "scan b.jpg"]
    assert [one.label for one in found["scan a.jpg"].annotations] == ["crack", "rust"]
    assert found["scan b.jpg"].annotations == ()
    # Its boxes reach from the first to the last pixel, which they leave out.
    boxes = [one.shape for one in found["scan a.jpg"].annotations]
    for box, expected in zip(boxes, [(20, 30, 59, 39), (100, 20, 85, 110)], strict=True):
        assert isinstance(box, Box)
        assert (box.x, box.y, box.width, box.height) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("label", ["crack", "rust"])
def test_masks_of_supervision(name: str, label: str) -> None:
    found = images_of(READ[name]("masks"))["scan a.jpg"]
    # It writes polygons through the centers of the outermost pixels, which lose half a pixel.
    assert iou(drawn(found, label), truth(label)) > 0.94
    # Readers of the three formats agree.
    coco = images_of(READ["coco"]("masks"))["scan a.jpg"]
    assert iou(drawn(found, label), drawn(coco, label)) >= 0.99


def test_a_task_of_the_converter_of_label_studio() -> None:
    found = images_of(read_labelstudio(HERE / "labelstudio" / "from coco.json"))
    (image,) = [one for one in found.values() if one.annotations]
    assert image.size == (WIDTH, HEIGHT)
    coco = images_of(READ["coco"]("masks"))["scan a.jpg"]
    polygons = [one for one in image.annotations if isinstance(one.shape, Polygon)]
    for one, other in zip(polygons, coco.annotations, strict=True):
        assert one.label == other.label
        ours, theirs = (rasterize([a.shape], WIDTH, HEIGHT) for a in (one, other))
        assert iou(ours, theirs) >= 0.99
    box = next(one.shape for one in image.annotations if isinstance(one.shape, Box))
    assert (box.x, box.y, box.width, box.height) == pytest.approx((20, 30, 59, 39))


def test_a_brush_stroke_of_label_studio(tmp_path: Path) -> None:
    imported = read_labelstudio(HERE / "labelstudio" / "brush.json")
    summary, maps = imported_maps(imported, HERE / "images", tmp_path / "out")
    assert (maps["scan a.jpg"] == disk() * 255).all()
    assert summary.images == 1


def test_an_export_of_a_server_of_label_studio(tmp_path: Path) -> None:
    """The server has changed the names of the uploaded images."""
    imported = read_labelstudio(HERE / "label studio server")
    one, other = imported
    assert "-scan_a.jpg" in one.name
    box, polygon, ellipse, mask = (found.shape for found in one.annotations)
    assert box == Box(*BOX)
    assert isinstance(polygon, Polygon)
    np.testing.assert_allclose(polygon.rings[0], POLYGON)
    assert ellipse == Ellipse(60, 115, 40, 30)
    assert (rasterize([mask], WIDTH, HEIGHT) == disk() * 255).all()
    assert [found.label for found in one.annotations] == ["crack", "rust", "rust", "crack"]
    assert other.examined
    summary, maps = imported_maps(imported, HERE / "images", tmp_path / "out", positive=("crack",))
    assert (summary.images, sorted(maps)) == (2, ["scan a.jpg"])


def test_files_of_labelme(tmp_path: Path) -> None:
    imported = read_labelme(HERE / "labelme")
    found = images_of(imported)
    shapes = [one.shape for one in found["images/scan a.jpg"].annotations]
    kinds = [type(one) for one in shapes]
    assert kinds == [Box, Polygon, Ellipse, Polyline, Points, Mask]
    assert shapes[0] == Box(*BOX)
    assert isinstance(shapes[1], Polygon)
    assert shapes[1].rings[0].tolist() == [list(point) for point in POLYGON]
    assert shapes[2] == Ellipse(60, 115, 30, 30)
    assert (rasterize(shapes[5:], WIDTH, HEIGHT) == disk() * 255).all()
    assert found["images/scan b.jpg"].examined
    summary, _ = imported_maps(imported, HERE / "images", tmp_path / "a", positive=("crack",))
    assert (summary.images, summary.maps) == (2, 1)


def test_a_file_of_cvat() -> None:
    imported = read_cvat(HERE / "datumaro" / "cvat" / "default.xml")
    assert imported.classes == ["crack", "rust"]
    found = images_of(imported)
    assert found["scan b.jpg"].annotations == ()
    box, polygon, line, points = (one.shape for one in found["scan a.jpg"].annotations)
    assert box == Box(*BOX)
    assert isinstance(polygon, Polygon)
    assert polygon.rings[0].tolist() == [list(point) for point in POLYGON]
    assert isinstance(line, Polyline)
    assert line.points.tolist() == [[10, 10], [60.5, 20.25], [90, 10]]
    assert isinstance(points, Points)
    assert points.points.tolist() == [[150, 140], [160.5, 141]]


def test_a_mask_of_cvat() -> None:
    imported = read_cvat(HERE / "datumaro" / "cvat mask" / "default.xml")
    (mask,) = images_of(imported)["scan a.jpg"].annotations
    assert isinstance(mask.shape, Mask)
    assert (rasterize([mask.shape], WIDTH, HEIGHT) == disk() * 255).all()


def test_boxes_polygons_and_masks_of_datumaro_in_coco() -> None:
    file = HERE / "datumaro" / "coco" / "annotations" / "instances_default.json"
    found = images_of(read_coco(file))
    box, polygon, mask = (one.shape for one in found["scan a.jpg"].annotations)
    assert box == Box(*BOX)
    assert isinstance(polygon, Polygon)
    assert polygon.rings[0].tolist() == [list(point) for point in POLYGON]
    assert isinstance(mask, Mask)
    assert (rasterize([mask], WIDTH, HEIGHT) == disk() * 255).all()
    assert found["scan b.jpg"].annotations == ()


def box_around(points: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    across, down = zip(*points, strict=True)
    x, y = min(across), min(down)
    return x, y, max(across) - x, max(down) - y


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_files_of_labelimg(name: str, tmp_path: Path) -> None:
    """It counts from 0 in both formats, and states the path of the image on its own machine."""
    folder = HERE / "labelimg" / name
    imported = read_voc(folder) if name == "voc" else read_yolo(folder, HERE / "images")
    found = images_of(imported)
    shapes = [one.shape for one in found["scan a.jpg"].annotations]
    for shape, wanted in zip(shapes, (BOX, box_around(POLYGON)), strict=True):
        assert isinstance(shape, Box)
        assert (shape.x, shape.y, shape.width, shape.height) == pytest.approx(wanted, abs=1e-3)
    assert [one.label for one in found["scan a.jpg"].annotations] == ["crack", "rust"]
    assert found["scan b.jpg"].examined
    summary, maps = imported_maps(imported, HERE / "images", tmp_path / "out", positive=("crack",))
    assert (summary.images, sorted(maps)) == (2, ["scan a.jpg"])


OPTIONS: dict[str, Any] = {"positive": ("crack",), "unmarked": "unknown"}
UPLOADED = {"fc118fdd-scan_a.jpg": "scan a.jpg", "f5c41dd1-scan_b.jpg": "scan b.jpg"}


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_exports_of_label_studio_in_other_formats(name: str, tmp_path: Path) -> None:
    """The images are those of the exported archive, under the names that the server gave them."""
    folder = HERE / "label studio exports" / name
    pictures = tmp_path / "images"
    pictures.mkdir()
    for uploaded, own in UPLOADED.items():
        shutil.copy(HERE / "images" / own, pictures / uploaded)
    imported: ImportedAnnotations
    if name == "coco":
        imported = read_coco(folder / "result.json")
    else:
        imported = read_voc(folder) if name == "voc" else read_yolo(folder, pictures)
    (one,) = [found for found in imported if found.annotations]
    assert Path(one.name).name == "fc118fdd-scan_a.jpg"
    box = one.annotations[0].shape
    assert isinstance(box, Box)
    assert (box.x, box.y, box.width, box.height) == pytest.approx(BOX, abs=1e-3)
    polygons = [found.shape for found in one.annotations[1:]]
    if name == "voc":  # in which Label Studio writes rectangles alone
        assert not polygons
    else:
        (polygon,) = polygons
        assert isinstance(polygon, Polygon)
        np.testing.assert_allclose(polygon.rings[0], POLYGON, atol=1e-3)
    _, maps = imported_maps(imported, pictures, tmp_path / "out", **OPTIONS)
    assert sorted(maps) == ["fc118fdd-scan_a.jpg"]
