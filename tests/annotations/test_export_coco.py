from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from preceptor.annotations.export import ExportOptions, manifest_images, write_export
from preceptor.data.manifest import Manifest
from tests.annotations.manifests import marked_manifest
from tests.annotations.trees import iou


@pytest.mark.parametrize("form", ["masks", "polygons"])
def test_pycocotools_reads_the_same_masks(tmp_path: Path, form: str) -> None:
    """It rounds the points of polygons, so that pixels at the border may differ."""
    manifest = Manifest.read(marked_manifest(tmp_path / "in"), need=())
    options = ExportOptions(form=form)  # type: ignore[arg-type]
    write_export("coco", manifest_images(manifest), tmp_path / "out", options)
    theirs = COCO(tmp_path / "out" / "annotations.json")
    maps = manifest.table.set_index("name")["saliency"]
    for number, image in theirs.imgs.items():
        whole = np.zeros((image["height"], image["width"]), np.uint8)
        for one in theirs.imgToAnns[number]:
            mask = theirs.annToMask(one)
            whole |= mask
            if form == "masks":
                assert mask.sum() == one["area"]
                rows, columns = np.nonzero(mask)
                corner = [columns.min(), rows.min()]
                sides = [np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert one["bbox"] == [*corner, *sides]
        stored = maps[image["file_name"]]
        if not stored:
            assert not whole.any()
            continue
        mask = np.asarray(Image.open(stored)) > 0
        depth = ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)
        wrong = (whole > 0) != mask
        assert not wrong[depth > (0 if form == "masks" else 2)].any()
        assert iou(mask, whole) > 0.95


def test_each_region_is_an_annotation_of_the_class_of_its_image(tmp_path: Path) -> None:
    manifest = Manifest.read(marked_manifest(tmp_path / "in"), need=())
    images = manifest_images(manifest, positive=["crack"])
    write_export("coco", images, tmp_path / "out", ExportOptions())
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [one["name"] for one in found["categories"]] == ["crack"]
    assert {one["image_id"] for one in found["annotations"]} == {1, 3, 5}
    assert [one["id"] for one in found["annotations"]] == list(
        range(1, len(found["annotations"]) + 1)
    )
