"""Maps that are exported and imported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor import annotations as importers
from preceptor.annotations.export import ExportOptions, manifest_images, write_export
from preceptor.annotations.write import ImportOptions, write_import
from preceptor.data.manifest import Manifest
from tests.annotations.manifests import NAMES, marked_manifest
from tests.annotations.trees import iou
from tests.commands import flags, here

FILES = {
    "masks": "masks",
    "coco": "annotations.json",
    "labelstudio": "tasks.json",
    "labelme": ".",
    "cvat": "annotations.xml",
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marked_manifest(tmp_path_factory.mktemp("manifest"))


def exported(manifest: Path, name: str, to: Path, **options: Any) -> Path:
    images = manifest_images(Manifest.read(manifest, need=()))
    write_export(name, images, to, ExportOptions(**options))
    return to


def imported(name: str, folder: Path, images: Path, to: Path) -> pd.DataFrame:
    """Table of the manifest of an import, by name."""
    read = getattr(importers, f"read_{name}")
    options = ImportOptions(labels=folder / "labels.csv", unmarked="examined")
    write_import(read(folder / FILES[name]), images, to, options)
    return Manifest.read(to / "manifest.csv", need=()).table.set_index("name")


def map_of(row: pd.Series) -> np.ndarray:
    if row["saliency"]:
        return np.asarray(Image.open(row["saliency"]).convert("L"))
    return np.zeros(1, np.uint8)


@pytest.mark.parametrize("form", ["polygons", "masks"])
@pytest.mark.parametrize("name", sorted(FILES))
def test_labels_and_maps_come_back_exactly(
    manifest: Path, tmp_path: Path, name: str, form: str
) -> None:
    folder = exported(manifest, name, tmp_path / "out", form=form)
    found = imported(name, folder, manifest.parent / "images", tmp_path / "back")
    before = Manifest.read(manifest, need=()).table.set_index("name")
    assert sorted(found.index) == sorted(NAMES)
    for image in NAMES:
        one, other = before.loc[f"images/{image}"], found.loc[image]
        assert list(one[["label", "split", "group"]]) == list(other[["label", "split", "group"]])
        assert other["annotated"]
        assert np.array_equal(map_of(one), map_of(other)), image


@pytest.mark.parametrize("name", ["coco", "labelstudio", "labelme", "cvat"])
def test_polygons_with_fewer_points_keep_the_region(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    rows = []
    y, x = np.mgrid[:200, :300]
    for number in range(3):
        map_ = ((x - 130) / 90) ** 2 + ((y - 90) / (40 + 10 * number)) ** 2 < 1
        map_ &= (x - 140) ** 2 + (y - 95) ** 2 > 225
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 200)).save(folder / "images" / f"{number}.png")
        Image.fromarray(map_.astype(np.uint8) * 255).save(folder / f"{number}.png")
        rows.append((f"images/{number}.png", "crack", f"{number}.png", 1))
    pd.DataFrame(rows, columns=["path", "label", "saliency", "annotated"]).to_csv(
        folder / "manifest.csv", index=False
    )
    out = exported(folder / "manifest.csv", name, tmp_path / "out", tolerance=0.5)
    found = imported(name, out, folder / "images", tmp_path / "back")
    for number in range(3):
        before = np.asarray(Image.open(folder / f"{number}.png"))
        assert iou(before, map_of(found.loc[f"{number}.png"])) >= 0.985


def test_gray_maps_come_back_exactly_as_masks(tmp_path: Path) -> None:
    manifest = marked_manifest(tmp_path / "in", gray=True)
    folder = exported(manifest, "masks", tmp_path / "out")
    found = imported("masks", folder, manifest.parent / "images", tmp_path / "back")
    before = Manifest.read(manifest, need=()).table.set_index("name")
    for image in NAMES:
        assert np.array_equal(map_of(before.loc[f"images/{image}"]), map_of(found.loc[image]))


def test_the_commands_there_and_back(manifest: Path, tmp_path: Path) -> None:
    out = here("data", "export", "coco", manifest, "--to", tmp_path / "out")
    assert (out.code, out.err) == (0, "")
    assert "6 images, 5 with marks" in out.out
    back = here(
        "data",
        "import",
        "coco",
        tmp_path / "out" / "annotations.json",
        *flags(images=manifest.parent / "images", labels=tmp_path / "out" / "labels.csv"),
        *flags(unmarked="examined", to=tmp_path / "back"),
    )
    assert back.code == 0
    assert "6 images, 5 with a map" in back.out
