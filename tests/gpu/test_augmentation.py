"""Batches on a GPU are those of the CPU: the same images, maps and random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.config.run import RunConfig
from preceptor.data.loader import Batch, Rows, TrainingStream
from preceptor.data.workspace import Workspace
from preceptor.training.prepare import build, guided_rows, image_formats
from tests.training.small_runs import small


def rows_of(manifest: Path, changes: dict[str, Any]) -> tuple[Rows, RunConfig]:
    training = {"input_size": 64, "batch_size": 8, "augmentation": changes}
    config = small(manifest, backbone="test_resnet", backbone_args={}, training=training)
    workspace = Workspace.open(manifest, verify=True, formats=image_formats(config))
    return guided_rows(workspace, config, build(workspace, config)), config


def batches(rows: Rows, config: RunConfig, device: torch.device, steps: int = 4) -> list[Batch]:
    settings = config.training.augmentation
    stream = TrainingStream(rows, 8, seed=0, settings=settings, device=device)
    return list(stream.steps(0, steps))


@pytest.mark.parametrize(
    ("changes", "levels", "share"),
    [
        ({"flip": True, "quarter_turns": True}, 0, 0.0),
        # On a CPU 8-bit crops are rounded after the first axis too.
        ({"crop_area": 0.5}, 1, 0.25),
        ({"color": 0.3}, 1, 0.01),
        ({"blur": 0.5}, 1, 0.01),
        ({"outside": "noise"}, 1, 0.01),
        ({"outside": "mean"}, 1, 0.01),
        ({"outside": "other"}, 1, 0.01),
    ],
    ids=lambda value: (
        "-".join(f"{key}-{to}" for key, to in value.items())
        if isinstance(value, dict)
        else str(value)
    ),
)
def test_images_are_changed_as_on_the_cpu(
    device: torch.device, manifest: Path, changes: dict[str, Any], levels: int, share: float
) -> None:
    rows, config = rows_of(manifest, changes)
    expected = batches(rows, config, torch.device("cpu"))
    for one, other in zip(batches(rows, config, device), expected, strict=True):
        assert one.images.device.type == device.type
        apart = (one.images.cpu().int() - other.images.int()).abs()
        assert apart.max() <= levels
        assert (apart > 0).float().mean() <= share
        for name in ("labels", "maps", "map_weight"):
            assert torch.equal(getattr(one, name).cpu(), getattr(other, name)), name
