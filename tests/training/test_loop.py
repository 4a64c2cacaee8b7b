"""Steps: schedules, no reads from the device, and the time of one."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.training import Speed, Training
from preceptor.training import prepare as probe
from preceptor.training.loop import Trainer, learning_rate, period_ends
from preceptor.training.prepare import step_seconds
from preceptor.training.run import train
from tests.datasets import squares
from tests.no_reads import NoReads


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("test_byobnet", {"distance": "l2"}),
        ("test_byobnet", {"distance": "kl", "cam_class": "predicted", "head": "sigmoid"}),
        ("test_convnext", {"distance": "mse"}),
        ("test_resnet", {"distance": "dice", "cam_source": "cyborg", "clip": 1.0}),
        ("test_resnet", {"consistency": 0.5, "augmentation": {"outside": "blur", "jpeg": 0.5}}),
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
    for how in (Speed(), Speed(channels_last=False, precision="bf16-mixed")):
        assert 0 < step_seconds(config(), CLASSES, how) < math.inf
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("limit", "steps"), [(0.0, 1), (6.5, 3)])
def test_a_limit_ends_the_steps(limit: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read at the start, and three times a step."""
    clock = SimpleNamespace(perf_counter=map(float, count()).__next__)
    monkeypatch.setattr(probe, "time", clock)
    taken = []
    original = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda one: (taken.append(1), original(one)))
    seconds = step_seconds(config(), CLASSES, Speed(), limit=limit)
    assert len(taken) == steps
    assert seconds == 1.0 if steps > 2 else math.isnan(seconds)
