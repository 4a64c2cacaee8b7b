"""A batch in parts: the same step, and what a run does whose memory runs out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from preceptor.config.run import RunConfig
from preceptor.data.loader import Batch
from preceptor.errors import DeviceFullError, RunFailedError
from preceptor.training.loop import Trainer, in_parts
from preceptor.training.run import RunResult, train
from preceptor.utils.results import file_digest

SMALL = {
    "input_size": 64,
    "batch_size": 7,
    "epochs": 2,
    "lr": 0.01,
    "schedule": "constant",
    "clip": 1.0,
    "device": "cpu",
    "consistency": 0.2,
    "augmentation": {"flip": True, "crop_area": 0.6, "outside": "mean"},
}
LEFT = ("model/model.safetensors", "metrics.csv", "scores.parquet")


def run_of(manifest: Path, training: dict[str, Any], **values: Any) -> RunConfig:
    base = {"manifest": manifest, "backbone": "test_vit", "positive": "marked", "alpha": 0.3}
    return RunConfig.model_validate(base | values | {"training": SMALL | training})


def apart(one: Path, other: Path) -> float:
    """The largest difference of weights relative to the largest weight of its tensor."""
    a, b = (load_file(folder / "model/model.safetensors") for folder in (one, other))
    return max(float((a[key] - b[key]).abs().max() / a[key].abs().max()) for key in a)


def in_parts_from(monkeypatch: pytest.MonkeyPatch, parts: int, epoch: int = 0) -> None:
    """Let every training from here on compute its batches in parts, from an epoch on."""
    original: Callable[..., dict[str, float]] = Trainer.epoch

    def divided(self: Trainer, number: int, *arguments: Any) -> dict[str, float]:
        self.parts = parts if number >= epoch else 1
        return original(self, number, *arguments)

    monkeypatch.setattr(Trainer, "epoch", divided)


def failing_at(monkeypatch: pytest.MonkeyPatch, call: int, error: Exception) -> None:
    """Let the call-th forward of a training from here on fail, once."""
    original: Callable[..., dict[str, Tensor]] = Trainer.accumulate
    calls = iter(range(10**6))

    def failing(self: Trainer, *arguments: Any) -> dict[str, Tensor]:
        if next(calls) == call:
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "accumulate", failing)


@given(count=st.integers(1, 40), parts=st.integers(1, 50), least=st.integers(1, 2))
def test_parts_are_the_batch(count: int, parts: int, least: int) -> None:
    batch = Batch(torch.arange(count)[:, None], torch.arange(count), None, torch.rand(count))
    found = in_parts(batch, parts, least)
    assert torch.equal(torch.cat([part.labels for part in found]), batch.labels)
    assert torch.equal(torch.cat([part.images for part in found]), batch.images)
    assert all(part.maps is None for part in found)
    sizes = [len(part.labels) for part in found]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(least, count)
    assert len(found) == min(parts, max(count // least, 1))


def test_a_step_in_parts_is_the_step_of_the_batch(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured, over eight steps in 3 parts: weights apart by at most 4e-6 of the largest."""
    config = run_of(manifest, {})
    whole = train(config, tmp_path / "whole")
    in_parts_from(monkeypatch, 3)
    divided = train(config, tmp_path / "divided")
    assert apart(whole.folder, divided.folder) < 2e-5
    metrics, same = (pd.read_csv(run.folder / "metrics.csv") for run in (whole, divided))
    np.testing.assert_allclose(metrics, same, rtol=1e-4, atol=1e-6)
    assert divided.record.parts == 3
    assert whole.record.parts == 1
    assert "parts" not in json.loads((whole.folder / "run.json").read_text())
    assert whole.record.peak_memory > 10**8


def assert_same(one: RunResult, other: RunResult) -> None:
    for name in LEFT:
        assert file_digest(one.folder / name) == file_digest(other.folder / name), name


@pytest.mark.parametrize(("epoch", "optimizer"), [(0, "sgd"), (1, "adamw")])
def test_an_epoch_begins_again_as_it_was(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, optimizer: str
) -> None:
    """Nothing is left of the steps before memory ran out."""
    config = run_of(manifest, {"optimizer": optimizer, "epochs": 3})
    lines: list[str] = []
    with monkeypatch.context() as patch:
        failing_at(patch, 4 * epoch + 2, torch.OutOfMemoryError("CUDA out of memory"))
        interrupted = train(config, tmp_path / "interrupted", tell=lines.append)
    assert f"out of memory in epoch {epoch + 1}: each batch is now computed in 2 parts" in lines
    assert len(lines) == 4
    with monkeypatch.context() as patch:
        in_parts_from(patch, 2, epoch)
        assert_same(interrupted, train(config, tmp_path / "planned"))
    assert interrupted.record.parts == 2


def test_where_it_cannot_go_on_it_says_so(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Trainer, *arguments: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    lines: list[str] = []
    config = run_of(manifest, {})
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "accumulate", never)
        with pytest.raises(
            RunFailedError,
            match=r"out of memory even with 1 image at a time \(batch_size 7, input_size 64\)",
        ):
            train(config, tmp_path, tell=lines.append)
        assert [line.rpartition(" in ")[2] for line in lines] == ["2 parts", "4 parts", "7 parts"]
        other = run_of(manifest, {"input_size": 32}, backbone="test_byobnet")
        other = other.model_copy(update={"backbone_args": {"output_stride": 8}})
        with pytest.raises(RunFailedError, match="even with 3 images at a time"):
            train(other, tmp_path)
        # On a device that others use as well it waits for its turn instead.
        with pytest.raises(DeviceFullError, match="out of memory on a shared device"):
            train(config, tmp_path, exclusive=False)
    with monkeypatch.context() as patch:
        failing_at(patch, 3, RuntimeError("sizes differ"))
        with pytest.raises(RuntimeError, match="sizes differ"):
            train(config, tmp_path)
