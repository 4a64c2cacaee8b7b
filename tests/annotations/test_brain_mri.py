"""One command from a format to a manifest, on real masks: the maps are the masks again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as oracle

from preceptor.annotations.json_formats import encode_brush, encode_counts
from preceptor.annotations.shapes import Pixels
from tests.annotations.trees import save_json
from tests.commands import flags, here

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "brain_mri"
DATA = Path(os.environ.get("PRECEPTOR_BRAIN_MRI", DATA))
pytestmark = pytest.mark.skipif(
    not (DATA / "manifest.csv").is_file(),
    reason="the folder brain_mri is not beside the repository, nor named by PRECEPTOR_BRAIN_MRI",
)
EACH = 6


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A few images of each class and split, with the mask of those that have one."""
    whole = pd.read_csv(DATA / "manifest.csv", keep_default_na=False)
    kept = whole[whole["split"].isin(["train", "val", "test"])]
    return kept.groupby(["split", "label"]).head(EACH).reset_index(drop=True)


def mask_of(row: Any) -> Pixels:
    """Mask of a row; without one, of the size of the image and empty."""
    if not row.saliency:
        return np.zeros(Image.open(DATA / row.path).size[::-1], np.uint8)
    found = np.asarray(Image.open(DATA / row.saliency).convert("L"))
    return np.where(found >= 128, 255, 0).astype(np.uint8)


def to_coco(table: pd.DataFrame, folder: Path) -> list[object]:
    images, annotations = [], []
    for number, row in enumerate(table.itertuples()):
        mask = mask_of(row)
        height, width = mask.shape
        images.append({"id": number, "file_name": row.path, "width": width, "height": height})
        if mask.any():
            rle = oracle.encode(np.asfortranarray(mask // 255))
            rle["counts"] = rle["counts"].decode()
            box = oracle.toBbox(rle).tolist()
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box,
                    "segmentation": rle,
                    "iscrowd": 0,
                }
            )
    file = {"images": images, "annotations": annotations}
    save_json(folder / "a.json", file | {"categories": [{"id": 1, "name": "tumour"}]})
    return ["coco", folder / "a.json", "--unmarked", "examined"]


def to_labelstudio(table: pd.DataFrame, folder: Path) -> list[object]:
    tasks = []
    for row in table.itertuples():
        mask = mask_of(row)
        value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["tumour"]}
        result = {
            "type": "brushlabels",
            "to_name": "image",
            "value": value,
            "original_width": mask.shape[1],
            "original_height": mask.shape[0],
        }
        done = {"completed_by": 1, "result": [result] if mask.any() else []}
        tasks.append({"data": {"image": f"/data/{row.path}"}, "annotations": [done]})
    return ["labelstudio", save_json(folder / "a.json", tasks)]


def to_cvat(table: pd.DataFrame, folder: Path) -> list[object]:
    lines = ["<annotations><version>1.1</version>"]
    for number, row in enumerate(table.itertuples()):
        mask = mask_of(row)
        high, wide = mask.shape
        lines.append(f'<image id="{number}" name="{row.path}" width="{wide}" height="{high}">')
        if mask.any():
            rle = ", ".join(map(str, encode_counts(mask.T)))
            place = f'left="0" top="0" width="{wide}" height="{high}"'
            lines.append(f'<mask label="tumour" source="manual" rle="{rle}" {place}/>')
        lines.append("</image>")
    (folder / "a.xml").write_text("\n".join([*lines, "</annotations>"]))
    return ["cvat", folder / "a.xml", "--unmarked", "examined"]


def to_masks(table: pd.DataFrame, folder: Path) -> list[object]:
    for row in table.itertuples():
        path = folder / "masks" / Path(row.path).with_suffix(".png").name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask_of(row)).save(path)
    labels = folder / "labels.csv"
    table[["path", "label"]].to_csv(labels, index=False)
    return ["masks", folder / "masks", "--labels", labels]


@pytest.mark.parametrize("convert", [to_coco, to_labelstudio, to_cvat, to_masks])
def test_the_maps_are_the_masks_again(
    table: pd.DataFrame, tmp_path: Path, convert: Callable[[pd.DataFrame, Path], list[object]]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in table["path"]:
        shutil.copy(DATA / name, images / Path(name).name)
    outcome = here(
        "data",
        "import",
        *convert(table, tmp_path),
        *flags(images=images, to=tmp_path / "out", negative="normal", split="0.5,0.25,0.25"),
        *flags(group_by=r"^(TCGA_[A-Z0-9]+_[A-Z0-9]+_\d+)"),
    )
    assert (outcome.code, outcome.err) == (0, ""), outcome
    found = pd.read_csv(tmp_path / "out" / "manifest.csv", keep_default_na=False)
    assert len(found) == len(table)
    assert (found["annotated"] == 1).all()
    by_name = found.set_index(found["name"])
    for row in table.itertuples():
        written, mask = by_name.loc[Path(row.path).name], mask_of(row)
        assert written["label"] == row.label
        assert bool(written["saliency"]) == bool(mask.any())
        if written["saliency"]:
            map_ = np.asarray(Image.open(tmp_path / "out" / written["saliency"]).convert("L"))
            assert (map_ == mask).all()
    checked = here("data", "check", tmp_path / "out" / "manifest.csv")
    assert checked.code == 0, checked.err
