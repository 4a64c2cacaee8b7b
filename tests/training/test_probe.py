"""The probe: what it may choose, what it leaves alone, and that it disturbs nothing."""

from __future__ import annotations

import math
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preceptor.config.run import RunConfig
from preceptor.config.training import Speed, Training
from preceptor.models.build import build_model
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

    def step(_: Any, __: Any, how: Speed, *, give_up: float = 0.0) -> tuple[float, float]:
        return seconds.get(how, 1e9), 100.0 if how.compile else 0.0

    monkeypatch.setattr(probe, "step_seconds", step)
    monkeypatch.setattr(probe, "has_bf16", lambda device: True)
    return seconds


def chosen(free: tuple[str, ...], steps: int = 100, **training: Any) -> Speed:
    return choose_speed(config(**training), CLASSES, free=free, steps=steps)


EVERYTHING = ("precision", "channels_last", "compile")


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


def test_compiling_must_pay_within_the_run(measured: dict[Speed, float]) -> None:
    measured[Speed(channels_last=True)] = 1.0
    measured[Speed(channels_last=True, compile=True)] = 0.5
    assert not chosen(EVERYTHING, steps=100).compile  # not even tried: the run is short
    assert chosen(EVERYTHING, steps=2000).compile
    measured[Speed(channels_last=True, compile=True)] = 0.88  # 100 s for 0.12 s a step
    assert not chosen(EVERYTHING, steps=2000).compile
    assert not chosen(("precision", "channels_last"), steps=2000).compile


def test_a_compiler_that_fails_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(_: Any, __: Any, how: Speed, *, give_up: float = 0.0) -> tuple[float, float]:
        if how.compile:
            raise RuntimeError("no C++ compiler")
        return 1.0, 1.0

    monkeypatch.setattr(probe, "step_seconds", step)
    told: list[str] = []
    found = choose_speed(config(), CLASSES, free=EVERYTHING, steps=10_000, tell=told.append)
    assert not found.compile
    assert "no C++ compiler" in told[0]


def test_a_step_is_measured_and_nothing_is_disturbed() -> None:
    torch.manual_seed(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    for how in (Speed(), Speed(channels_last=False, precision="bf16-mixed")):
        seconds, first = step_seconds(config(), CLASSES, how)
        assert 0 < seconds < math.inf
        assert first > 0
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
    free = ("channels_last", "compile")
    found = choose_speed(config(), CLASSES, free=free, steps=1, tell=told.append)
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
    seconds, first = step_seconds(config(), CLASSES, Speed(), limit=limit)
    assert len(taken) == steps
    assert first == 1.0
    assert seconds == 1.0 if steps > 2 else math.isnan(seconds)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_trunk_is_the_same_network(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inductor compiles C++ for a minute; the graphs of both directions are traced without it."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.manual_seed(0)
    model = build_model("test_resnet", CLASSES, input_size=64).train()
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    plain = model(images, labels)
    model.load_state_dict(state)
    try:
        model.compile_trunk()
        compiled = model(images, labels)
    except Exception as error:  # torch's own kinds
        pytest.skip(f"torch.compile does not work on this machine: {str(error)[:100]}")
    assert list(model.state_dict()) == list(state)
    torch.testing.assert_close(compiled.logits, plain.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(compiled.saliency, plain.saliency, atol=1e-4, rtol=1e-4)
    compiled.saliency.square().sum().backward()
    assert all(p.grad is not None for p in model.backbone.conv1.parameters())
