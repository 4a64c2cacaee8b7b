"""Model folders of untrained networks, for tests of models in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from preceptor.models.build import build_model, save_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.networks import classifiers

THRESHOLDS = {"eer": 0.5, "fdr=0.05": 0.25, "fdr=0.01": 0.75}


def model_folder(folder: Path, backbone: str, seed: int = 0, **options: Any) -> Path:
    """Model folder of an untrained network, whose scores depend on the image."""
    torch.manual_seed(seed)
    classes = options.pop("classes", ("real", "fake"))
    positive = options.pop("positive", "fake")
    model = build_model(backbone, classes, positive=positive, **{"input_size": 64, **options})
    _spread(model)
    save_model(model, folder, THRESHOLDS if positive else None)
    return folder


def _spread(model: GuidedModel) -> None:
    """Scale the head so that the scores of images lie on both sides of one half."""
    generator = torch.Generator().manual_seed(0)
    spec = model.spec
    shape = (16, spec.in_chans, spec.input_size, spec.input_size)
    noise = torch.randint(0, 256, shape, generator=generator)
    images = (noise * torch.rand((16, 1, 1, 1), generator=generator)).to(torch.uint8)
    (head,) = classifiers(model.backbone)
    assert isinstance(head, torch.nn.Linear)
    model.eval()
    with torch.no_grad():
        for _ in range(2):
            logits = model(model.preprocess(images)).logits
            if spec.head == "sigmoid":
                logits = 2 * logits[:, 1:]
            head.weight /= logits.std(0).mean()
            logits = model(model.preprocess(images)).logits
            head.bias -= 2 * logits[:, 1:].mean(0) if spec.head == "sigmoid" else logits.mean(0)


FINE: dict[str, Any] = {"backbone_args": {"output_stride": 8}}
# Backbone, seed and options by what is special about a model.
KINDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "plain": ("test_resnet", 0, FINE),
    "letterbox": ("test_byobnet", 1, {"fit": "letterbox", "input_size": 96}),
    "gray": ("test_resnet", 2, {"in_chans": 1, "fit": "crop"}),
    "sigmoid": ("test_resnet", 3, {"head": "sigmoid"}),
    "three": ("test_resnet", 4, FINE | {"classes": ("a", "b", "c"), "positive": None}),
    "gradcam": ("test_convnext", 5, {}),
}


def write_model_folders(folder: Path, *kinds: str) -> dict[str, Path]:
    """Model folders by what is special about them; of some kinds, or (none given) of all."""
    chosen = {kind: KINDS[kind] for kind in kinds or KINDS}
    return {
        kind: model_folder(folder / kind, backbone, seed, **options)
        for kind, (backbone, seed, options) in chosen.items()
    }
