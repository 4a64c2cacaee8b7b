"""Maps and scores on a GPU are those of the CPU, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.maps import RiseSettings
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.inference.annotate import compute_maps, rows_of
from preceptor.maps.store import MapStore
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel

# Maps are stored as float16 in [0, 1].
ROUNDING = 2e-3


def network(backbone: str, device: torch.device) -> GuidedModel:
    torch.manual_seed(0)
    model = build_model(backbone, ["plain", "marked"], positive="marked", input_size=64)
    return model.to(device).to(memory_format=torch.channels_last).eval()


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"cam_class": "decision"}),
        ("test_resnet", {"cam_class": "predicted"}),
        ("test_resnet", {"method": "cells"}),
        ("test_convnext", {}),
        ("test_vit", {"cam_class": "decision"}),
        ("test_resnet", {"method": "rise", "rise": RiseSettings(max_masks=256, tolerance=0)}),
        ("test_byobnet", {"method": "rise", "rise": RiseSettings(max_masks=256, fill="blur")}),
    ],
    ids=["cam", "decision", "predicted", "cells", "gradcam", "vit", "rise", "rise-blur"],
)
def test_maps_are_those_of_the_cpu(
    device: torch.device, manifest: Path, backbone: str, options: dict[str, Any]
) -> None:
    def made(on: torch.device) -> MapStore:
        table = Manifest.read(manifest)
        return compute_maps(
            network(backbone, on), Workspace(table), rows_of(table, "val"), **options
        )

    expected, found = made(torch.device("cpu")), made(device)
    np.testing.assert_allclose(found.maps, expected.maps, atol=ROUNDING)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    assert found.info.settings == expected.info.settings
