"""An exported ONNX file and its model folder, made once for all tests of a run."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from preceptor.deploy.export import (
    CheckImages,
    Exported,
    ExportSettings,
    export_model,
    model_outputs,
    synthetic_images,
)
from preceptor.models.build import build_model, load_model, save_model
from tests.made_once import made_once

CARD = "# A model card\n\nTrained on nothing.\n"
_PLACE = tempfile.TemporaryDirectory()


class ExportedFile(NamedTuple):
    """An export, its model folder and what `export_model` returned."""

    path: Path
    folder: Path
    result: Exported


@cache
def onnx_file() -> ExportedFile:
    """Export of a two-class model with an exact map, of any size, at the threshold 0.5."""

    def make(place: Path) -> ExportedFile:
        folder = shutil.copytree(model_folder("plain"), place / "plain")
        out = place / "plain.onnx"
        return ExportedFile(out, folder, export_model(folder, out, ExportSettings()))

    return made_once("exported", make)[1]


@cache
def model_folder(name: str, backbone: str = "test_resnet", positive: str | None = "fake") -> Path:
    """Model folder of an untrained network, whose scores depend on the image."""
    torch.manual_seed(0)
    classes = ("real", "fake") if positive else ("a", "b", "c")
    model = build_model(backbone, classes, positive=positive, input_size=64)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr,operator]
        if model.spec.cam == "cam":
            model.head.weight.mul_(8)
    folder = Path(_PLACE.name, name)
    save_model(model, folder, {"eer": 0.5} if positive else None)
    (folder / "README.md").write_text(CARD)
    return folder


def labelled_images(folder: Path, count: int = 48) -> CheckImages:
    """Images with the labels that the two-class model itself gives them: its AUC is 1."""
    model = load_model(folder)
    images = synthetic_images(model.spec.image_format, count)
    scores = model_outputs(model, maps=False)(images.read(images.positions)).probabilities[:, 1]
    labels = (scores > np.median(scores)).astype(np.int64)
    return CheckImages(images.read, images.positions, labels, np.array(["val"] * count, object))
