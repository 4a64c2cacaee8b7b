"""Nothing in a guided step reads a value back from the device: each read would stop a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.losses import guided
from preceptor.losses.guided import Targets, combine, guided_loss_terms
from preceptor.saliency.maps import correlation, normalize
from preceptor.training.loop import Trainer, step_sums
from preceptor.training.run import train
from tests.datasets import squares
from tests.no_reads import NoReads


def test_the_mode_notices() -> None:
    with NoReads(), pytest.raises(AssertionError, match="waits for the device"):
        bool(torch.ones(2).any())
    with NoReads(), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(2)[torch.tensor([True, False])]


def test_the_sums_of_a_step_read_each_map_normalised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, cam, maps = torch.randn(5, 3), torch.randn(5, 4, 4), torch.rand(5, 4, 4)
    maps[1] = 0.5  # constant: not guided
    targets = Targets(torch.tensor([0, 1, 2, 0, 1]), maps, torch.tensor([1.0, 1, 0, 2, 0.5]))
    counted: list[int] = []

    def normalised(values: Tensor) -> Tensor:
        counted.append(len(values))
        return normalize(values)

    monkeypatch.setattr(guided, "normalize", normalised)
    terms = guided_loss_terms(logits, cam, targets)
    sums = step_sums(logits, terms, targets, combine(terms, 0.3), 0.3, Training(distance="l2"))
    assert counted == [5, 5]
    rows = [0, 3, 4]
    expected = correlation(cam[rows], maps[rows]).values.sum()
    torch.testing.assert_close(sums["map_correlation"], expected)
    assert (sums["guided"].item(), sums["uninformative"].item()) == (3, 1)
    torch.testing.assert_close(sums["loss"], 5 * combine(terms, 0.3))


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("test_byobnet", {"distance": "l2"}),
        ("test_byobnet", {"distance": "kl", "cam_class": "predicted", "head": "sigmoid"}),
        ("test_convnext", {"distance": "mse"}),
        ("test_resnet", {"distance": "dice", "cam_source": "cyborg", "clip": 1.0}),
        ("test_resnet", {"consistency": 0.5, "augmentation": {"outside": "noise", "jpeg": 0.5}}),
    ],
)
def test_no_step_of_a_training_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, settings: dict[str, Any]
) -> None:
    steps = []
    original = Trainer.step

    def step(self: Any, batch: Any, *arguments: Any) -> Any:
        steps.append(len(batch.labels))
        with NoReads():
            return original(self, batch, *arguments)

    monkeypatch.setattr(Trainer, "step", step)
    config = RunConfig(
        manifest=squares(tmp_path / "data"),
        backbone=backbone,
        positive="marked",
        maps=MapSource(kind="human"),
        training=Training.model_validate(
            {"input_size": 64, "epochs": 1, "batch_size": 8} | settings
        ),
    )
    train(config, tmp_path / "runs")
    assert sum(steps) == 24
