"""Maps, scores and predictors on a GPU are those of the CPU, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import preceptor
from preceptor.config.run import RiseSettings
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.deploy.network import find_device
from preceptor.errors import InputError
from preceptor.inference.annotate import compute_maps, rows_of
from preceptor.maps.store import MapStore
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from tests.model_folders import KINDS, write_model_folders

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
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.info.settings == expected.info.settings


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (9, 40, 50, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_maps_are_those_of_the_cpu(
    device: torch.device, tmp_path: Path, images: list[NDArray[np.uint8]], kind: str
) -> None:
    (folder,) = write_model_folders(tmp_path, kind).values()
    expected = preceptor.load(folder, device="cpu")(images)
    found = preceptor.load(folder, device=device.type)(images)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    assert found[0].map is not None
    np.testing.assert_allclose(found[0].map, expected[0].map, atol=2e-3)


def test_auto_takes_the_device(device: torch.device, tmp_path: Path) -> None:
    if device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("auto takes the GPU")
    assert find_device("auto").type == device.type
    with pytest.raises(InputError, match=r"this machine has \d+ GPUs"):
        preceptor.load(write_model_folders(tmp_path, "plain")["plain"], device="cuda:99")
