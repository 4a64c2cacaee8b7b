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
from preceptor.training.probe import step_seconds

CLASSES = ["a", "b"]


def config(**training: Any) -> RunConfig:
    settings = {"input_size": 32, "batch_size": 4} | training
    return RunConfig(
        manifest=Path("m"),
        backbone="test_byobnet",
        positive="b",
        training=Training.model_validate(settings),
    )


EVERYTHING = ("precision", "channels_last")


def test_a_step_is_measured_and_nothing_is_disturbed() -> None:
    torch.manual_seed(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    for how in (Speed(), Speed(channels_last=False, precision="bf16-mixed")):
        assert 0 < step_seconds(config(), CLASSES, how) < math.inf
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


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
