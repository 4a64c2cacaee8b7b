"""The probe: what it may choose, what it leaves alone, and that it disturbs nothing."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preceptor.config.run import RunConfig
from preceptor.config.training import Speed, Training
from preceptor.training import probe
from preceptor.training.probe import choose_speed, step_seconds

CLASSES = ["a", "b"]


def config(**training: Any) -> RunConfig:
    settings = {"input_size": 32, "batch_size": 4} | training
    return RunConfig(
        manifest=Path("m"),
        backbone="test_byobnet",
        positive="b",
        training=Training.model_validate(settings),
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[Speed, float]:
    """Seconds by speed, in place of a clock; what is asked for and missing takes for ever."""
    seconds: dict[Speed, float] = {}

    def step(_: Any, __: Any, how: Speed, *, give_up: float = 0.0) -> float:
        return seconds.get(how, 1e9)

    monkeypatch.setattr(probe, "step_seconds", step)
    monkeypatch.setattr(probe, "has_bf16", lambda device: True)
    return seconds


def chosen(free: tuple[str, ...], **training: Any) -> Speed:
    return choose_speed(config(**training), CLASSES, free=free)


EVERYTHING = ("precision", "channels_last")


def test_the_fastest_wins(measured: dict[Speed, float]) -> None:
    measured[Speed(channels_last=False)] = 1.0
    measured[Speed(channels_last=True)] = 0.8
    measured[Speed(precision="bf16-mixed", channels_last=False)] = 0.4
    measured[Speed(precision="bf16-mixed", channels_last=True)] = 0.5
    assert chosen(EVERYTHING) == Speed(precision="bf16-mixed", channels_last=False)


def test_bf16_must_earn_its_rounding(measured: dict[Speed, float]) -> None:
    measured[Speed(channels_last=True)] = 1.0
    measured[Speed(precision="bf16-mixed")] = 0.95
    assert chosen(EVERYTHING) == Speed()
    measured[Speed(precision="bf16-mixed")] = 0.85
    assert chosen(EVERYTHING) == Speed(precision="bf16-mixed")


def test_another_layout_must_be_clearly_faster(measured: dict[Speed, float]) -> None:
    """Equal layouts differ by some percent from one measurement to the next."""
    measured[Speed(channels_last=True)] = 1.0
    measured[Speed(channels_last=False)] = 0.97
    assert chosen(EVERYTHING) == Speed(channels_last=True)
    measured[Speed(precision="bf16-mixed", channels_last=True)] = 0.5
    measured[Speed(precision="bf16-mixed", channels_last=False)] = 0.49
    assert chosen(EVERYTHING) == Speed(precision="bf16-mixed", channels_last=True)
    measured[Speed(channels_last=False)] = 0.4
    assert chosen(EVERYTHING) == Speed(channels_last=False)


def test_what_is_given_stays(measured: dict[Speed, float]) -> None:
    measured[Speed(precision="bf16-mixed", channels_last=False)] = 0.1
    measured[Speed(channels_last=False)] = 0.5
    assert chosen(("channels_last",)) == Speed(channels_last=False)
    assert chosen(("precision",), channels_last=True) == Speed()
    found = chosen(("channels_last",), precision="bf16-mixed")
    assert found == Speed(precision="bf16-mixed", channels_last=False)


def test_a_step_is_measured_and_nothing_is_disturbed() -> None:
    torch.manual_seed(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    for how in (Speed(), Speed(channels_last=False, precision="bf16-mixed")):
        assert 0 < step_seconds(config(), CLASSES, how) < math.inf
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_step_without_memory_is_never_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training then divides its batches, where the probe would have ended the study."""
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD) -> None:
        if any(one.stride()[1:2] != (1,) for one in self.param_groups[0]["params"] if one.ndim > 3):
            raise torch.OutOfMemoryError("CUDA out of memory")
        original(self)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    told: list[str] = []
    found = choose_speed(config(), CLASSES, free=("channels_last",), tell=told.append)
    assert found == Speed(channels_last=True)
    assert "channels-first out of memory" in told[0]


def test_a_hopeless_choice_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    original = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: (steps.append(1), original(self, *a))
    )
    step_seconds(config(), CLASSES, Speed(), give_up=0.0)
    assert len(steps) == 2


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
