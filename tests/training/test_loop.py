"""Nothing in a guided step reads a value back from the device: each read would stop a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from preceptor.config.run import MapSource, RunConfig, Training
from preceptor.training.loop import Trainer
from preceptor.training.run import train
from tests.datasets import squares

# What .item(), bool(), float() and nonzero() come down to; boolean indexing is told below.
READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class NoReads(TorchDispatchMode):
    """Counts steps and refuses operations whose result the host must wait for."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        masked = function is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        waits = masked or function in READS
        assert not waits, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


def test_the_mode_notices() -> None:
    with NoReads(), pytest.raises(AssertionError, match="waits for the device"):
        bool(torch.ones(2).any())
    with NoReads(), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(2)[torch.tensor([True, False])]


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("test_byobnet", {"distance": "l2"}),
        ("test_byobnet", {"distance": "kl", "cam_class": "predicted", "head": "sigmoid"}),
        ("test_convnext", {"distance": "mse"}),
        ("test_resnet", {"distance": "dice", "cam_source": "cyborg", "clip": 1.0}),
    ],
)
def test_no_step_of_a_training_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, settings: dict[str, Any]
) -> None:
    steps = []
    original = Trainer._step

    def step(self: Any, batch: Any, share: float) -> Any:
        steps.append(len(batch.labels))
        with NoReads():
            return original(self, batch, share)

    monkeypatch.setattr(Trainer, "_step", step)
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
