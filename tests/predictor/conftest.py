"""Model folders and image files of the tests of predictors, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.models.build import build_model, save_model
from tests.image_files import ImageFiles, write_image_files

THRESHOLDS = {"eer": 0.5, "fdr=0.05": 0.25, "fdr=0.01": 0.75}


def model_folder(folder: Path, backbone: str, seed: int = 0, **options: Any) -> Path:
    """Model folder of an untrained network, whose scores depend on the image."""
    torch.manual_seed(seed)
    classes = options.pop("classes", ("real", "fake"))
    positive = options.pop("positive", "fake")
    model = build_model(backbone, classes, positive=positive, **{"input_size": 64, **options})
    with torch.no_grad():  # spread over [0, 1], as the scores of a trained one
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr,operator]
        if model.spec.cam == "cam":
            model.head.weight.mul_(8)
    save_model(model, folder, THRESHOLDS if positive else None)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by what is special about them."""
    folder = tmp_path_factory.mktemp("models")
    plain = "test_resnet"
    return {
        "plain": model_folder(folder / "plain", plain, backbone_args={"output_stride": 8}),
        "letterbox": model_folder(
            folder / "letterbox", "test_byobnet", 1, fit="letterbox", input_size=96
        ),
        "gray": model_folder(folder / "gray", plain, 2, in_chans=1, fit="crop"),
        "sigmoid": model_folder(folder / "sigmoid", plain, 3, head="sigmoid"),
        "three": model_folder(
            folder / "three",
            plain,
            4,
            classes=("a", "b", "c"),
            positive=None,
            backbone_args={"output_stride": 8},
        ),
        "gradcam": model_folder(folder / "gradcam", "test_convnext", 5),
    }


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    """Image files of all kinds."""
    return write_image_files(tmp_path_factory.mktemp("images") / "all")
