"""An exported ONNX file and its model folder, made once for all tests of a run."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from preceptor.config.settings import NetworkFactory
from preceptor.models.build import build_model, save_model
from tests.commands import Outcome, here
from tests.made_once import made_once


class ExportedFile(NamedTuple):
    """An export, its model folder and what the command said."""

    path: Path
    folder: Path
    said: Outcome


@cache
def onnx_file() -> ExportedFile:
    """Export of a two-class model with an exact map, of any size, at the threshold 0.5."""

    def make(place: Path) -> ExportedFile:
        folder = shutil.copytree(model_folder("plain", "test_resnet"), place / "plain")
        out = place / "plain.onnx"
        return ExportedFile(out, folder, here("export", folder, "--out", out))

    return made_once("exported", make)[1]


@cache
def model_folder(name: str, backbone: str = "small", positive: str | None = "fake") -> Path:
    """Model folder of an untrained network, whose scores depend on the image.

    By default one of two convolutions, else of `tests.networks`: an export takes time by layers.
    """

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        classes = ("real", "fake") if positive else ("a", "b", "c")
        how: dict[str, Any] = {"positive": positive, "input_size": 64}
        if not backbone.startswith("test_"):
            how["network"] = NetworkFactory(factory=f"tests.networks:{backbone}")
        model = build_model(backbone, classes, **how)
        with torch.no_grad():
            for part in model.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr,operator]
            if model.spec.cam == "cam":
                model.head.weight.mul_(8)
        save_model(model, folder, {"eer": 0.5} if positive else None)

    return made_once(f"exported-{name}", make)[0]
