"""What `preceptor doctor` and the probe of a study say about a GPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from preceptor.cli import inspect_installation as inspection
from preceptor.cli.inspect_installation import inspect_installation
from preceptor.execution.events import WorkerContext
from preceptor.execution.local import LocalExecutor
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import has_bf16
from tests.studies import study


def test_the_gpu_is_found_and_measured(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "SPEED_SECONDS", math.inf)
    installation = inspect_installation()
    found, speed = installation.devices, installation.speed
    assert len(found.gpus) == (torch.cuda.device_count() if device.type == "cuda" else 0)
    assert not found.error
    if device.type == "cuda":
        assert found.gpus[0].memory > 2**30
    assert {one.precision for one in speed} >= {"32-true"}
    assert all(one.images and one.images > 0 for one in speed)
    assert ("bf16-mixed" in {one.precision for one in speed}) == has_bf16("auto")


def test_a_study_starts_with_one_run_on_each_gpu(
    device: torch.device, manifest: Path, tmp_path: Path
) -> None:
    config = study(manifest)
    context = WorkerContext(Workspaces.of_study(config, tmp_path), tmp_path, device=device.type)
    executor = LocalExecutor(context, jobs=64)
    try:
        assert executor.free == (torch.cuda.device_count() if device.type == "cuda" else 64)
    finally:
        executor.close()
