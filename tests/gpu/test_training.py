"""A training on a GPU is that on the CPU, up to rounding, and the same again, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from preceptor.config.run import RunConfig
from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel, autocast
from preceptor.training.run import RunResult, train
from preceptor.utils.results import file_digest
from tests.gpu.runs import run_of

PAPER = ("densenet121", "resnet50", "legacy_xception", "inception_v3")
# Rounding of float32 in another order of summation, grown over the three steps of a training.
ROUNDING = 2e-3
# bf16 has 8 bits of mantissa.
HALF = 0.05


def metrics_of(run: RunResult) -> pd.DataFrame:
    return pd.read_csv(run.folder / "metrics.csv")


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("test_byobnet", {}),
        ("test_convnext", {"distance": "mse", "optimizer": "adamw"}),
        ("test_resnet", {"distance": "dice", "cam_source": "cyborg", "clip": 1.0}),
        ("test_byobnet", {"distance": {"l2": 0.5, "cells": 0.5}, "cam_class": "decision"}),
        ("test_resnet", {"readout": "auto", "augmentation": {"outside": "noise", "flip": True}}),
        ("test_vit", {"channels_last": False}),
    ],
    ids=["cam", "gradcam", "cyborg", "decision", "outside", "vit"],
)
def test_a_training_is_that_of_the_cpu(
    device: torch.device, manifest: Path, tmp_path: Path, backbone: str, settings: dict[str, Any]
) -> None:
    expected = train(run_of(manifest, "cpu", backbone, **settings), tmp_path / "cpu")
    found = train(run_of(manifest, device.type, backbone, **settings), tmp_path / "device")
    assert found.id == expected.id  # the device is not a part of what a run is
    assert found.record.device.startswith(device.type)
    losses = ["images", "loss", "classification", "guidance", "guided", "map_correlation"]
    for name in losses:
        np.testing.assert_allclose(
            metrics_of(found)[name], metrics_of(expected)[name], rtol=ROUNDING, atol=ROUNDING
        )


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_near(
    device: torch.device, manifest: Path, tmp_path: Path, precision: str
) -> None:
    if precision == "16-mixed" and device.type == "cpu":
        pytest.skip("a CPU does not train in float16")
    expected = train(run_of(manifest, "cpu", "test_byobnet"), tmp_path / "cpu")
    config = run_of(manifest, device.type, "test_byobnet", precision=precision)
    found = train(config, tmp_path / "device")
    for name in ("loss", "classification", "guidance"):
        np.testing.assert_allclose(metrics_of(found)[name], metrics_of(expected)[name], rtol=HALF)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("backbone", ["test_byobnet", "test_convnext"])
def test_two_trainings_are_one_to_the_bit(
    device: torch.device, manifest: Path, tmp_path: Path, backbone: str, precision: str
) -> None:
    changes = {"flip": True, "crop_area": 0.6, "color": 0.3, "blur": 0.5, "outside": "other"}
    config = run_of(
        manifest, device.type, backbone, precision=precision, augmentation=changes, epochs=2
    )
    one, other = (train(config, tmp_path / name).folder for name in "ab")
    for name in ("model/model.safetensors", "metrics.csv", "scores.parquet"):
        assert file_digest(one / name) == file_digest(other / name), name


class InterruptedRunError(RuntimeError):
    """End of a process after an epoch."""


@pytest.mark.parametrize(
    ("first", "second"), [("device", "cpu"), ("cpu", "device"), ("device", "device")]
)
def test_a_run_goes_on_where_another_device_left_it(
    device: torch.device, manifest: Path, tmp_path: Path, first: str, second: str
) -> None:
    def config(on: str) -> RunConfig:
        name = device.type if on == "device" else "cpu"
        return run_of(manifest, name, "test_byobnet", epochs=2, optimizer="adamw")

    def interrupt(line: str) -> None:
        raise InterruptedRunError(line)

    with pytest.raises(InterruptedRunError, match="epoch 1/2"):
        train(config(first), tmp_path / "continued", tell_epoch=interrupt)
    told: list[str] = []
    found = train(config(second), tmp_path / "continued", tell=told.append)
    assert told[0] == "resumed after epoch 1 of 2"
    whole = train(config(second), tmp_path / "whole")
    np.testing.assert_allclose(metrics_of(found)["loss"], metrics_of(whole)["loss"], rtol=ROUNDING)
    if first == second:
        name = "model/model.safetensors"
        assert file_digest(found.folder / name) == file_digest(whole.folder / name)


def guided_step(model: GuidedModel, device: torch.device, loss: GuidedLoss) -> dict[str, float]:
    """Loss and norm of the gradients of a step on images that depend on nothing."""
    generator = torch.Generator().manual_seed(1)
    side = model.spec.input_size
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator)
    maps = torch.rand((2, *model.grid()), generator=generator).to(device)
    labels = torch.tensor([0, 1], device=device)
    out = model.train()(model.preprocess(images.to(device)), labels)
    value = loss(out.logits, labels, out.saliency, maps)
    value.backward()
    gradients = [part.grad for part in model.parameters() if part.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    return {"loss": value.item(), "norm": norm.item()}


def network(backbone: str, size: int, device: torch.device) -> GuidedModel:
    torch.manual_seed(0)
    return build_model(backbone, ["a", "b"], input_size=size).to(device)


@pytest.mark.parametrize("backbone", PAPER)
def test_a_guided_step_of_the_papers_backbones(device: torch.device, backbone: str) -> None:
    cpu = torch.device("cpu")
    expected = guided_step(network(backbone, 128, cpu), cpu, GuidedLoss(0.5))
    found = guided_step(network(backbone, 128, device), device, GuidedLoss(0.5))
    assert found == pytest.approx(expected, rel=1e-2)


def test_maps_are_computed_in_float32_within_autocast(device: torch.device) -> None:
    model = network("test_resnet", 64, device)
    images = torch.rand(2, 3, 64, 64, device=device)
    with torch.no_grad(), autocast(device, "bf16-mixed"):
        out = model(images, "predicted")
    assert out.saliency.dtype == torch.float32
