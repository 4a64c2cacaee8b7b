"""Memory of a GPU, what doctor says of it, and studies on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.cli.doctor import inspect_installation
from preceptor.config.run import RunConfig
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.driver import run_study
from preceptor.execution.local import LocalExecutor
from preceptor.execution.perform import WorkerContext
from preceptor.inference.predict import predict
from preceptor.models.build import build_model
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import step_seconds
from preceptor.training.run import train
from preceptor.utils.process import peak_memory, release_memory
from tests.datasets import squares
from tests.gpu.runs import run_of
from tests.studies import run_serially, same_tables, study


@contextmanager
def limited(card: torch.device, size: float) -> Iterator[None]:
    """Context in which torch may take `size` bytes of a GPU."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(card).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, size / total), card)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card)
        torch.cuda.empty_cache()


def large(manifest: Path, device: str) -> RunConfig:
    """A run whose memory is that of its batch."""
    size = 224 if device == "cuda" else 64
    return run_of(manifest, device, "test_convnext", input_size=size, batch_size=24)


def test_predictions_take_smaller_batches(card: torch.device, tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 128})
    model = build_model("resnet18", ["plain", "marked"], input_size=224).to(card).eval()
    workspace = Workspace(Manifest.read(manifest, need=()))
    rows = workspace.rows(np.arange(128), model.spec.image_format, model.spec.classes)
    release_memory(card)
    expected = predict(model, rows, batch_size=128).probabilities
    peak = peak_memory(card)
    assert peak is not None
    with limited(card, 0.6 * peak):
        found = predict(model, rows, batch_size=128).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_probe_without_memory_is_no_error(card: torch.device, manifest: Path) -> None:
    with limited(card, 2**20 * 64):
        seconds = step_seconds(large(manifest, "cuda"), ["a", "b"])
    assert seconds == float("inf")


def test_the_peak_is_that_of_the_run(card: torch.device, manifest: Path, tmp_path: Path) -> None:
    before = torch.empty(2**28, dtype=torch.uint8, device=card)
    del before  # 256 MiB that the run does not need
    record = train(run_of(manifest, "cuda", "test_byobnet"), tmp_path).record
    assert record.device_memory == torch.cuda.get_device_properties(card).total_memory
    assert record.peak_memory is not None
    assert 0 < record.peak_memory < 2**28


def test_the_gpu_is_found(device: torch.device) -> None:
    state = inspect_installation()
    gpus = [value for name, value in state.values if name == "GPU"]
    assert len(gpus) == (torch.cuda.device_count() if device.type == "cuda" else 1)
    assert not [one for one in state.notes if one.where == "GPU"]
    assert ("none; training uses the CPU" in gpus) == (device.type != "cuda")


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


def test_every_step_of_a_study_is_computed_on_the_device(
    device: torch.device, manifest: Path, tmp_path: Path
) -> None:
    training = {"input_size": 32, "epochs": 1, "batch_size": 8}
    config = study(manifest, seeds=1, controls=(), ceiling=False, training=training)
    run_serially(config, tmp_path / "study")
    records = [json.loads(file.read_text()) for file in (tmp_path / "study").rglob("run.json")]
    devices = {record["device"] for record in records if "device" in record}
    assert {name.partition(":")[0] for name in devices} == {device.type}
    assert (tmp_path / "study" / "comparisons.csv").is_file()


@pytest.mark.parametrize("runs", [1, 2])
def test_runs_that_share_a_gpu_leave_the_tables_of_one(
    card: torch.device, manifest: Path, tmp_path: Path, runs: int
) -> None:
    training = {"input_size": 32, "epochs": 1, "batch_size": 8}
    config = study(manifest, seeds=2, training=training)
    run_serially(config, tmp_path / "alone")
    run_study(config, tmp_path / "shared", jobs=2, runs_per_gpu=runs, tell=lambda line: None)
    same_tables(tmp_path / "alone", tmp_path / "shared")
