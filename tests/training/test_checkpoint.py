"""Checkpoints, records, steps and schedules of runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from preceptor.config.run import MapSource, RunConfig
from preceptor.config.training import Training
from preceptor.errors import InputError
from preceptor.training.loop import Trainer, learning_rate, period_ends
from preceptor.training.prepare import step_seconds
from preceptor.training.record import (
    Progress,
    RunRecord,
    SetMetrics,
    load_progress,
    save_progress,
    set_metrics,
    snapshot,
)
from preceptor.training.run import train
from preceptor.utils.results import damaged_files, read_record
from tests.datasets import squares
from tests.no_reads import NoReads
from tests.studies import RECORD

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


def assert_equal(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_resumed_run_goes_on_as_if_nothing_had_been(
    tmp_path: Path, kind: str, layout: torch.memory_format
) -> None:
    model = network(0).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = OPTIMISERS[kind](model.parameters())
    for seed in range(3):
        step(model, optimizer, seed)
    progress = Progress(
        epoch=3,
        history=[{"auc": 0.5, "loss": float("nan")}],
        best_score=0.75,
        best_epoch=1,
        best_state=snapshot(network(9)),
        seconds=12.5,
    )
    save_progress(tmp_path / "state", "run-a", progress, model, optimizer)
    saved = snapshot(model)

    again = network(1).to(memory_format=layout)  # type: ignore[call-overload]
    new = OPTIMISERS[kind](again.parameters())
    back = load_progress(tmp_path / "state", "run-a", again, new)
    assert_equal(snapshot(again), saved)
    assert_equal(back.best_state, progress.best_state)
    assert (back.epoch, back.best_score, back.best_epoch, back.seconds) == (3, 0.75, 1, 12.5)
    assert back.history[0]["auc"] == 0.5
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(again, new, seed)
    assert_equal(snapshot(again), snapshot(model))
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_anything_else_is_a_fresh_start(tmp_path: Path) -> None:
    model = network(0)
    optimizer = OPTIMISERS["momentum"](model.parameters())
    step(model, optimizer, 0)
    path = tmp_path / "state"
    save_progress(path, "run-a", Progress(epoch=3), model, optimizer)
    whole = path.read_bytes()
    untouched = network(5)
    before = snapshot(untouched)
    fresh = OPTIMISERS["momentum"](untouched.parameters())

    def start(run: str = "run-a") -> Progress:
        found = load_progress(path, run, untouched, fresh)
        assert_equal(snapshot(untouched), before)
        assert not fresh.state
        return found

    assert start("run-b") == Progress()
    for content in (b"", b"\0" * 64, whole[:5], whole[:200], whole[:-1], b"junk" + whole):
        path.write_bytes(content)
        assert start() == Progress()
    for metadata in (None, {"other": "x"}, {"state": "{"}, {"state": "[]"}, {"state": "{}"}):
        save_file({"model.x": torch.zeros(1)}, path, metadata=metadata)
        assert start() == Progress()
    path.unlink()
    assert start() == Progress()
    path.mkdir()
    assert start() == Progress()


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    assert RunRecord.read(tmp_path) == RECORD
    assert damaged_files(tmp_path) == []
    assert set_metrics(read_record(tmp_path)["metrics"]) == {"val": SetMetrics(0.75, 0.875)}


def test_a_record_that_lacks_a_value_is_named(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    file = tmp_path / "run.json"
    values = json.loads(file.read_text())
    del values["saliency"]
    file.write_text(json.dumps(values))
    with pytest.raises(
        InputError, match=r"run\.json: not the record of a training \(saliency is missing\)"
    ):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("test_byobnet", {"distance": "kl", "cam_class": "predicted", "head": "sigmoid"}),
        ("test_resnet", {"distance": "dice", "cam_source": "cyborg", "clip": 1.0}),
        ("test_resnet", {"augmentation": {"outside": "noise", "blur": 0.5}}),
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


def test_learning_rates() -> None:
    def rates(kind: str) -> list[float]:
        settings = Training(schedule=kind, lr=1.0)
        return [learning_rate(settings, step, 100, step // 5) for step in range(100)]

    assert set(rates("constant")) == {1.0}
    assert set(rates("step")) == {1.0, 0.1}
    cosine = rates("cosine")
    assert cosine == sorted(cosine, reverse=True)
    assert math.isclose(cosine[0], 1, abs_tol=1e-3)
    assert 0 < cosine[-1] < 1e-3
    cycle = rates("one_cycle")
    assert math.isclose(max(cycle), 1, abs_tol=0.03)
    assert int(np.argmax(cycle)) in (24, 25)
    assert min(cycle) > 0


@pytest.mark.parametrize(("steps", "periods"), [(7, 2), (9, 3), (10, 10)])
def test_periods_cover_all_steps_evenly(steps: int, periods: int) -> None:
    ends = period_ends(Training(length="steps", steps=steps, epochs=periods), 999)
    assert ends[-1] == steps
    lengths = np.diff([0, *ends])
    assert lengths.min() >= 1
    assert lengths.max() - lengths.min() <= 1
    assert period_ends(Training(epochs=periods), steps) == [
        steps * k for k in range(1, periods + 1)
    ]


CLASSES = ["a", "b"]


def config(**training: Any) -> RunConfig:
    settings = {"input_size": 32, "batch_size": 4} | training
    return RunConfig(
        manifest=Path("m"),
        backbone="test_byobnet",
        positive="b",
        training=Training.model_validate(settings),
    )


def test_a_step_is_measured_and_nothing_is_disturbed() -> None:
    torch.manual_seed(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    for how in ({}, {"channels_last": False, "precision": "bf16-mixed"}):
        assert 0 < step_seconds(config(**how), CLASSES) < math.inf
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
